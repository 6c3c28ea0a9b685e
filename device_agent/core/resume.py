"""What a stage found at a start of the agent leads to (rule R19)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from device_agent.core.attempts import attempt_of, doing, fail, turn_back
from device_agent.core.effects import Activate, Fetch, Report, Revert
from device_agent.core.effects import Stage as StageEffect
from device_agent.core.events import Moment, Started
from device_agent.core.history import renewed
from device_agent.core.idle import look
from device_agent.core.manifests import reconsider
from device_agent.core.probation import again
from device_agent.core.record import Record
from device_agent.core.reports import Move, report
from device_agent.core.tidying import tidying
from fleet_protocol.messages import Stage
from fleet_protocol.timestamps import format_time

RESUMES: Final = 3
"""Starts that an attempt may need in one stage; the next one counts as its failure."""
LOST: Final = "the agent or the power was lost too often"

Resumer = Callable[[Record, Moment], Move]


@dataclass(frozen=True, slots=True)
class Resumption:
    """What is done again, and which stages that may lead to; `text` is for people and diagrams."""

    resume: Resumer
    to: frozenset[Stage]
    text: str


def started(record: Record, event: Started) -> Move:
    """Put pauses and clocks right, ask again for what was pending, report, and go on from the stage that was found."""
    at = event.at
    record = replace(record, kernel=event.kernel, pauses=event.pauses)
    record = replace(record, wake_s=None, check_s=None, probation_until_s=None)
    record = renewed(record, at)
    waiting = tuple(Report(report=pending) for pending in record.pending)
    found = RESUME.get(record.stage, UNKNOWN)
    record, reports = report(_counted(record), at)
    record, effects = RESUME["idle"].resume(record, at) if record.attempt is None else found.resume(record, at)
    return record, (*waiting, *reports, *effects)


def _counted(record: Record) -> Record:
    """The record as the start of the agent found it: idle without an attempt, or with one more start counted."""
    if record.stage == "idle" or record.attempt is None:
        return replace(record, stage="idle", attempt=None)
    stage = record.stage if record.stage in RESUME else "rolling_back"
    return replace(record, stage=stage, attempt=replace(record.attempt, resumes=record.attempt.resumes + 1))


def _choose(record: Record, at: Moment) -> Move:
    again = tidying(record)
    record, effects = look(record, at)
    return record, (*again, *effects)


def _fetch(record: Record, at: Moment) -> Move:
    """A download goes on where it was, however often it was cut off: it costs nothing that runs."""
    record, effects = reconsider(record, at)
    if record.stage != "downloading":
        return record, effects
    return replace(record, retries=0, why=doing(record)), (Fetch(),)


def _stage(record: Record, at: Moment) -> Move:
    record, effects = reconsider(record, at)
    if record.stage != "installing":
        return record, effects
    return fail(record, at, "interrupted", LOST) if _worn_out(record) else (record, (StageEffect(),))


def _activate(record: Record, at: Moment) -> Move:
    return turn_back(record, at, "interrupted", LOST) if _worn_out(record) else (record, (Activate(),))


def _try_again(record: Record, at: Moment) -> Move:
    if _worn_out(record):
        return turn_back(record, at, "interrupted", LOST)
    return again(record, attempt_of(record), at), ()


def _revert(record: Record, at: Moment) -> Move:
    """Undoing is repeated as often as it takes, and does not depend on the time."""
    return replace(record, retries=0, why=f"{doing(record)}, since {format_time(at.wall_s)}"), (Revert(),)


def _undo(record: Record, at: Moment) -> Move:
    """Nobody knows what the stage had done: going back is right after anything."""
    return turn_back(record, at, "interrupted", "the journal names a stage that this agent does not know")


def _worn_out(record: Record) -> bool:
    attempt = attempt_of(record)
    return attempt.resumes > RESUMES or (record.stage == "switching" and attempt.tree is None)


RESUME: Final[Mapping[Stage, Resumption]] = {
    "idle": Resumption(_choose, frozenset({"idle", "downloading", "switching"}), "choose"),
    "downloading": Resumption(_fetch, frozenset({"downloading", "idle"}), "fetch on"),
    "installing": Resumption(_stage, frozenset({"installing", "idle"}), "stage again"),
    "switching": Resumption(_activate, frozenset({"switching", "rolling_back"}), "activate again"),
    "probation": Resumption(_try_again, frozenset({"probation", "rolling_back"}), "probation again"),
    "rolling_back": Resumption(_revert, frozenset({"rolling_back"}), "revert again"),
}
UNKNOWN: Final = Resumption(_undo, frozenset({"rolling_back"}), "roll back")
