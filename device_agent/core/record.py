"""Everything the agent must remember over a power cut: one record, journalled before every effect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from device_agent.core.backoff import MOST_S
from device_agent.core.plan import Plan, PlannedRelease
from fleet_protocol.messages import AttemptReport, Stage

SlotName = Literal["a", "b"]
Standing = Literal["good", "bad", "unknown"]
Purpose = Literal["install", "recall", "rollback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotContent:
    """What one slot holds."""

    release: PlannedRelease
    deployment: str
    tree: str
    """SHA-256 over the slot's content as the worker computed it after writing."""
    standing: Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSlots:
    """The two slots of one package. `active` is the committed slot, None before the first commit.

    During probation the attempt's slot runs, and `active` still names the one to return to.
    """

    active: SlotName | None = None
    a: SlotContent | None = None
    b: SlotContent | None = None

    def content(self, slot: SlotName | None) -> SlotContent | None:
        """What `slot` holds."""
        return None if slot is None else (self.a if slot == "a" else self.b)

    @property
    def spare(self) -> SlotName:
        """The slot that may be written: never the active one."""
        return "b" if self.active == "a" else "a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at one deployment."""

    deployment: str
    release: PlannedRelease
    purpose: Purpose
    number: int
    slot: SlotName
    """The slot that this attempt makes active."""
    previous: SlotName | None
    """The slot to return to; None where nothing was installed before."""
    probation_s: int
    tree: str | None = None
    """Set once the slot is written and re-hashed; the switch needs it."""
    resumes: int = 0
    """How often the attempt was found unfinished at a start of the agent."""
    code: str | None = None
    detail: str = ""
    """Why the attempt is being rolled back, once it is."""
    command: str | None = None
    """The operator's command that caused it."""
    irreversible: bool = False
    """Whether the operator accepts that there is no way back."""
    starts: int = 0
    """How often in a row the release that the attempt goes back to would not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A deployment that failed here, remembered so that it is not tried again until told."""

    number: int
    code: str
    detail: str
    tries: int = 1
    """Attempts since the last time it was told to try."""
    retry_s: float | None = None
    """Monotonic moment from which it may be tried again by itself; None means not until told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingReport:
    """A report that is decided but not yet signed into the outbox."""

    counter: int
    wall_s: float
    attempt: AttemptReport | None
    attack: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """How long the machine waits, as far as the device's owner has a say in it."""

    check_least_s: float = 0.0
    """Least time between two checks on probation, where the release would have it checked more often."""
    retry_most_s: float = MOST_S
    """The longest pause of the machine's own before it tries again; what a peer wishes for may be longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The agent's memory. Times in it are monotonic seconds of this boot and are renewed on resume."""

    device: str = ""
    """This device's id: what its bucket is computed from."""
    pauses: Pauses = field(default_factory=Pauses)
    """As the settings had them at the last start."""
    stage: Stage = "idle"
    plan: Plan | None = None
    obeyed: int = 0
    """The highest manifest sequence obeyed in the present group; never falls."""
    group: str | None = None
    packages: Mapping[str, PackageSlots] = field(default_factory=dict)
    attempt: Attempt | None = None
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """By deployment id."""
    recalls: Mapping[str, Failure] = field(default_factory=dict)
    """Recalls that failed, by the id of the deployment that they were to leave."""
    retries: int = 0
    """Failures in a row of a download or of going back, for the backoff."""
    wake_s: float | None = None
    """When the machine wants a Tick (monotonic): end of probation, of a backoff, next check."""
    probation_until_s: float | None = None
    check_s: float | None = None
    """When the next check of the probation is due; None while one runs."""
    unhealthy: int = 0
    """Failed checks in a row during probation."""
    healthy: int = 0
    """Passed checks during this probation."""
    report_counter: int = 0
    pending: tuple[PendingReport, ...] = ()
    attacks: Mapping[str, int] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    """Ids of the newest commands carried out, so that none is carried out twice."""
    rollbacks: Mapping[str, str] = field(default_factory=dict)
    """Packages that an operator wants rolled back and that wait their turn, with the command's id."""
    adopted: tuple[str, ...] = ()
    """Deployments of the plan that were reported committed because their release was installed already."""
    uncommitted: tuple[str, ...] = ()
    """Packages whose Commit is not known to have ended."""
    untidy: tuple[str, ...] = ()
    """Packages whose Discard is not known to have ended."""
    kernel: str = ""
    """The kernel that runs, as `uname -r` prints it."""
    why: str = "no manifest yet"
    """Why the device is not updating, or what it is doing."""
