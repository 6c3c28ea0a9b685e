"""What can happen to the machine. Every event carries the moment at which the shell saw it."""

from dataclasses import dataclass, field
from typing import Literal

from device_agent.core.plan import Plan
from device_agent.core.record import Pauses


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Time and luck, read by the shell so that the machine needs neither clock nor randomness."""

    wall_s: float
    """Trusted wall clock, epoch seconds."""
    mono_s: float
    """Monotonic seconds; only differences within one boot mean anything."""
    luck: float
    """Uniform in [0, 1), for the jitter of a backoff."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The agent has started, and read its settings and this record. `kernel` is what `uname -r` prints."""

    at: Moment
    kernel: str = ""
    pauses: Pauses = field(default_factory=Pauses)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticked:
    """Time has passed; sent at the record's `wake_s` or later."""

    at: Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """A verified assignment names this device's group."""

    at: Moment
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The worker verified a manifest; its sequence is already persisted in the floor file."""

    at: Moment
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The worker refused a document for the fault of its sender."""

    at: Moment
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """All artifacts of the attempt are in the cache, whole and verified."""

    at: Moment
    deployment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """The attempt's slot is written, fsynced and re-hashed."""

    at: Moment
    deployment: str
    tree: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """The attempt's slot is active and its service was started."""

    at: Moment
    deployment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One health check of the release on probation. `code` is None where it is well."""

    at: Moment
    deployment: str
    code: str | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverted:
    """The previous slot is active again (or the package is gone, where there was none)."""

    at: Moment
    deployment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The running effect of the attempt failed with `code`, whose fault decides what follows."""

    at: Moment
    deployment: str
    code: str
    detail: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commanded:
    """A verified operator command: `rollback` or `retry`, for one package or all."""

    at: Moment
    id: str
    name: str
    package: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportQueued:
    """The pending report with this counter is signed and safe in the outbox."""

    at: Moment
    counter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidied:
    """A Commit or Discard of this package has ended well; unless it is said, it is asked for again."""

    at: Moment
    package: str
    op: Literal["commit", "discard"]


Event = (
    Started
    | Ticked
    | Assigned
    | Accepted
    | Refused
    | Fetched
    | Staged
    | Activated
    | Checked
    | Reverted
    | Failed
    | Commanded
    | ReportQueued
    | Tidied
)
