"""The trial of a release that was switched to (rules R15 and R16)."""

from dataclasses import replace
from typing import Final

from device_agent.core.attempts import commit, enter, turn_back
from device_agent.core.effects import Cancel, Check
from device_agent.core.events import Moment
from device_agent.core.plan import PlannedRelease
from device_agent.core.record import Attempt, Record
from device_agent.core.reports import Move
from fleet_protocol.install import HealthCheck

INTERVAL_S: Final = 5
FAILURES: Final = 3
TIMEOUT_S: Final = 10
"""What holds for a release that defines no check of its own; the device still looks whether it runs."""
ANSWER_S: Final = 60.0
"""How long a check may take beyond its own timeout: the start of a process on a loaded device."""


def begin_probation(record: Record, attempt: Attempt, at: Moment) -> Move:
    """R15: the clock starts; the first check waits for one interval, because a service needs time to come up."""
    record, effects = enter(record, "probation", at)
    return _trial(record, attempt, at), effects


def again(record: Record, attempt: Attempt, at: Moment) -> Record:
    """The record with the probation begun anew after a start of the agent; the count of such starts is kept."""
    return _trial(record, attempt, at)


def tick(record: Record, attempt: Attempt, at: Moment) -> Move:
    """What time brings: a check, the commit, or the end of the wait for an answer."""
    if record.check_s is None:
        return _unanswered(record, attempt, at)
    if _passed(record, at):
        return commit(record, at)
    if at.mono_s < record.check_s:
        return record, ()
    answer_s = _longest([check.timeout_s for check in _checks(attempt.release)], TIMEOUT_S) + ANSWER_S
    return replace(record, check_s=None, wake_s=at.mono_s + answer_s), (Check(),)


def well(record: Record, attempt: Attempt, at: Moment) -> Move:
    """A check passed; nothing is failing now."""
    record = replace(record, healthy=record.healthy + 1, unhealthy=0)
    record = _next_check(record, attempt, at)
    return commit(record, at) if _passed(record, at) else (record, ())


def unwell(record: Record, attempt: Attempt, at: Moment, detail: str) -> Move:
    """A check failed, or could not be made: too many in a row end the probation."""
    record = replace(record, unhealthy=record.unhealthy + 1)
    if record.unhealthy >= _least([check.failures for check in _checks(attempt.release)], FAILURES):
        return turn_back(record, at, "unhealthy", detail)
    return _next_check(record, attempt, at), ()


def _unanswered(record: Record, attempt: Attempt, at: Moment) -> Move:
    """R16: a check that does not answer is a failed check, so that every probation ends."""
    if record.wake_s is not None and at.mono_s < record.wake_s:
        return record, ()
    record, effects = unwell(record, attempt, at, "the check did not answer")
    return record, effects if Cancel() in effects else (Cancel(), *effects)


def _trial(record: Record, attempt: Attempt, at: Moment) -> Record:
    until_s = at.mono_s + attempt.probation_s
    first_s = at.mono_s + min(_interval_s(record, attempt), max(attempt.probation_s, 1))
    return replace(record, probation_until_s=until_s, unhealthy=0, healthy=0, check_s=first_s, wake_s=first_s)


def _next_check(record: Record, attempt: Attempt, at: Moment) -> Record:
    check_s = at.mono_s + _interval_s(record, attempt)
    until_s = record.probation_until_s
    ends_first = record.healthy > 0 and record.unhealthy == 0 and until_s is not None
    wake_s = min(check_s, until_s) if ends_first and until_s is not None else check_s
    return replace(record, check_s=check_s, wake_s=wake_s)


def _passed(record: Record, at: Moment) -> bool:
    over = record.probation_until_s is not None and at.mono_s >= record.probation_until_s
    return over and record.healthy > 0 and record.unhealthy == 0


def _interval_s(record: Record, attempt: Attempt) -> float:
    wanted_s = _least([check.interval_s for check in _checks(attempt.release)], INTERVAL_S)
    return max(float(wanted_s), record.pauses.check_least_s)


def _checks(release: PlannedRelease) -> list[HealthCheck]:
    return [target.install.check for target in release.targets if target.install.check is not None]


def _least(values: list[int], otherwise: int) -> int:
    return min(values, default=otherwise)


def _longest(values: list[int], otherwise: int) -> int:
    return max(values, default=otherwise)
