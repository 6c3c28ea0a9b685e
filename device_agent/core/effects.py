"""What the machine may ask of its shell. Each is idempotent: it may be asked for twice after a crash.

Fetch, Stage, Activate, Check and Revert concern the record's attempt; one is under way at a time, and its end comes
back as an event that names the deployment. Commit and Discard come after an attempt and say themselves what they are
about; they run before any worker effect that follows them in the list, and a Cancel may end them too.
"""

from dataclasses import dataclass

from device_agent.core.plan import PlannedRelease
from device_agent.core.record import PendingReport, SlotName


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Download the attempt's artifacts into the cache; ends in Fetched or Failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Unpack the artifacts into the attempt's slot and re-hash it; ends in Staged or Failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activate:
    """Back up, stop, switch, start; ends in Activated or Failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Ask the release on probation once whether it is well; ends in Checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Drop what only a rollback of this attempt would have needed, and the cached downloads; ends in Tidied."""

    package: str
    slot: SlotName
    """The slot that was committed."""
    release: PlannedRelease


@dataclass(frozen=True, slots=True, kw_only=True)
class Revert:
    """Re-hash the previous slot, stop, switch back, restore backups, start; ends in Reverted or Failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard:
    """Empty a slot and the cache of what is not wanted any more; ends in Tidied."""

    package: str
    slot: SlotName | None
    """The slot to empty, never the active one; None where the spare slot holds what must be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End the running worker effect, if there is one; its event is dropped. Comes first in the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Sign this report and put it in the outbox; ends in ReportQueued."""

    report: PendingReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Answer a command. `code` is None where it was accepted."""

    id: str
    code: str | None
    detail: str


Effect = Fetch | Stage | Activate | Check | Commit | Revert | Discard | Cancel | Report | Reply
