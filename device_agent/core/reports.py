"""What the device says about itself (rule R21): reports are decided here and wait in the record until they are safe."""

from dataclasses import replace
from typing import Final

from device_agent.core.effects import Effect, Report
from device_agent.core.events import Moment
from device_agent.core.plan import PlannedRelease
from device_agent.core.record import Attempt, PendingReport, Record
from device_agent.core.slots import active_content, slots_of
from fleet_protocol.errors import CODES, Fault
from fleet_protocol.messages import AttemptReport, Installed, Outcome

Move = tuple[Record, tuple[Effect, ...]]
"""What a step comes to: the record to persist, then the effects to ask for."""

PENDING: Final = 64
"""Reports that may wait for their signature. The oldest without an outcome is dropped first."""
DETAIL: Final = 1_000
"""Characters of another process's words that are kept."""
INSTALLED: Final = 256


def report(record: Record, at: Moment, attempt: AttemptReport | None = None, attack: str | None = None) -> Move:
    """One more report under the next counter, about `attempt`, or about the one in progress."""
    counter = record.report_counter + 1
    about = progress(record) if attempt is None else attempt
    pending = PendingReport(counter=counter, wall_s=at.wall_s, attempt=about, attack=attack)
    waiting = _bounded((*record.pending, pending))
    return replace(record, report_counter=counter, pending=waiting), (Report(report=pending),)


def progress(record: Record) -> AttemptReport | None:
    """How far the attempt in progress has come."""
    attempt = record.attempt
    return None if attempt is None else describe(record, attempt, None, attempt.code, attempt.detail)


def describe(record: Record, attempt: Attempt, outcome: Outcome | None, code: str | None, detail: str) -> AttemptReport:
    """An attempt as the server follows it: by its deployment, and the release that the deployment is about."""
    release = _subject(record, attempt)
    return AttemptReport(
        deployment=attempt.deployment,
        package=release.package,
        version=release.version,
        counter=max(release.counter, 1),
        number=attempt.number,
        stage=record.stage,
        outcome=outcome,
        code=code,
        detail=detail,
    )


def attacked(record: Record, code: str) -> Record:
    """The record with one more refusal under `code`."""
    return replace(record, attacks={**record.attacks, code: record.attacks.get(code, 0) + 1})


def installed(record: Record) -> tuple[Installed, ...]:
    """What is installed and committed, by package: the `installed` member of a report."""
    contents = [(package, active_content(record, package)) for package in sorted(record.packages)]
    rows = [
        Installed(
            package=package,
            version=content.release.version,
            counter=content.release.counter,
            deployment=content.deployment,
        )
        for package, content in contents
        if content is not None
    ]
    return tuple(rows[:INSTALLED])


def known(code: str, otherwise: str) -> str:
    """`code` where it is one of ours, so that no other process's slip can make a report impossible."""
    return code if code in CODES else otherwise


def blames_peer(code: str) -> bool:
    """Whether the code says that somebody sent what must not be installed: an attack, until shown otherwise."""
    return CODES[code].fault is Fault.PROTOCOL


def clean(detail: str) -> str:
    """Another process's words, fit to be reported."""
    return detail.replace("\0", "")[:DETAIL].encode("utf-8", "replace").decode("utf-8")


def queued(record: Record, counter: int) -> Record:
    """The record without the pending report of this counter."""
    return replace(record, pending=tuple(pending for pending in record.pending if pending.counter != counter))


def _subject(record: Record, attempt: Attempt) -> PlannedRelease:
    """A deployment that is being left is reported under the release that it brought."""
    if attempt.purpose == "install":
        return attempt.release
    left = slots_of(record, attempt.release.package).content(attempt.previous)
    return attempt.release if left is None else left.release


def _bounded(pending: tuple[PendingReport, ...]) -> tuple[PendingReport, ...]:
    if len(pending) <= PENDING:
        return pending
    passing = (index for index, one in enumerate(pending) if one.attempt is None or one.attempt.outcome is None)
    index = next(passing, 0)
    return pending[:index] + pending[index + 1 :]
