"""What the use cases need of the outside world. Each port has one contract suite for all its adapters."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fleet_protocol.messages import Outcome
from fleet_protocol.topics import Address
from server.domain.fleet import AttemptSeen, AuditEntry, Device, Group
from server.domain.job import Job
from server.domain.rollout import Rollout, RolloutState


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The newest unsigned reading of one kind (`state`, `telemetry`, `health`, `heartbeat`) of one device."""

    device: str
    kind: str
    at_s: float
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One message from a device as the broker delivered it; `ack` releases it after the commit."""

    address: Address
    payload: bytes
    at_s: float
    ack: Callable[[], None]


class Member(NamedTuple):
    """One device of a group, as a census needs it."""

    device: str
    device_class: str


class Vote(NamedTuple):
    """How one device's newest attempt at a deployment stands; `outcome` is None while it goes on."""

    device: str
    version: str
    outcome: Outcome | None
    code: str | None
    at_s: float
    change: int
    """Rises with every change of any vote about the deployment, so that one may ask for what is new."""


class Reads(Protocol):
    """One consistent view. Lists are ordered by id (name, topic); attempts and readings by device and kind.

    A row that can not be read raises PolicyError `database` and names the row; a database that can not be
    reached or is locked for too long raises TransportError `unreachable`: try again later. Ids, names and counts are
    read without the rest of their rows, so that one row does not hide the others.
    """

    def device(self, device_id: str) -> Device | None: ...
    def devices(self, group: str | None = None) -> list[Device]: ...
    def devices_by_id(self, ids: Collection[str]) -> dict[str, Device]:
        """Those of `ids` that are enrolled."""

    def enrolled(self, ids: Collection[str]) -> set[str]:
        """Those of `ids` that are enrolled, without reading what is known of them."""

    def device_counts(self) -> tuple[int, int]:
        """How many devices are enrolled, and how many of them say that they are online."""

    def roster_stamp(self, group: str) -> tuple[int, int]:
        """Changes whenever a device joins or leaves the group; equal stamps mean equal rosters."""

    def roster(self, group: str) -> list[Member]: ...
    def unheard(self, group: str, before_s: float) -> list[str]:
        """Ids of the group's devices that were not seen at `before_s` or later."""

    def group(self, name: str) -> Group | None: ...
    def groups(self) -> list[Group]: ...
    def group_names(self) -> list[str]:
        """Every group by name, whatever else its row holds."""

    def job(self, job_id: str) -> Job | None: ...
    def jobs(self, group: str | None = None) -> list[Job]: ...
    def standing_jobs(self, group: str) -> list[str]:
        """Ids of the group's jobs that are not superseded, the oldest first, whatever else their rows hold."""

    def rollout(self, rollout_id: str) -> Rollout | None: ...
    def rollouts(self, group: str | None = None, state: RolloutState | None = None) -> list[Rollout]: ...
    def moving(self) -> list[str]:
        """Ids of the rollouts that are neither recalled nor complete, whatever else their rows hold."""

    def rollout_counts(self) -> dict[str, int]:
        """How many rollouts there are in each state."""

    def attempt(self, deployment: str, device: str) -> AttemptSeen | None: ...
    def attempts(self, deployment: str) -> list[AttemptSeen]: ...
    def votes(self, deployment: str, after: int = 0) -> list[Vote]:
        """One for each device that has reported about the deployment, if it changed after that; by `change`."""

    def readings(self, device: str) -> list[Reading]: ...
    def readings_of(self, group: str | None, kinds: Collection[str]) -> list[Reading]:
        """The readings of these kinds of every device, or of a group's, in one question."""

    def document(self, topic: str) -> bytes | None: ...
    def documents(self) -> list[tuple[str, bytes]]:
        """Every retained document that the broker ought to hold, by topic."""

    def peak(self, name: str) -> int:
        """The highest number that was raised under the name; 0 before the first."""

    def audit_entries(self, most: int) -> list[AuditEntry]:
        """The newest first."""


class Work(Reads, Protocol):
    """One transaction. Everything put is visible to later reads of the same transaction."""

    def put_device(self, device: Device) -> None: ...
    def put_devices(self, devices: Sequence[Device]) -> None:
        """Insert or replace by id; no id twice."""

    def remove_device(self, device_id: str) -> None:
        """Forget the device, its attempts and its readings; an unknown id is ignored.

        Roster stamps and the changes of votes that were told are never told again for something else.
        """

    def touch_devices(self, seen: Sequence[tuple[str, float]]) -> None:
        """Raise `seen_s` of many devices at once; unknown ids are ignored, and no `seen_s` ever falls."""

    def put_group(self, group: Group) -> None: ...

    def put_job(self, job: Job) -> None: ...
    def put_rollout(self, rollout: Rollout) -> None: ...

    def put_attempts(self, attempts: Sequence[AttemptSeen]) -> None:
        """Insert or replace by (deployment, device). A device that is not enrolled: PolicyError `unknown-node`."""

    def put_readings(self, readings: Sequence[Reading]) -> None:
        """Keep the newest of each (device, kind); of equal times the last. Unenrolled: PolicyError `unknown-node`."""

    def put_document(self, topic: str, payload: bytes | None) -> None:
        """Remember what a retained topic must hold; None means that it must be empty."""

    def raise_peak(self, name: str, value: int) -> None:
        """Remember the number under the name unless a higher one is: it outlives what it was given to."""

    def audit(self, entry: AuditEntry) -> None: ...


class Store(Protocol):
    """The server's memory."""

    def begin(self) -> AbstractContextManager[Work]:
        """A transaction that commits when the block ends and leaves nothing behind when it raises.

        Transactions of all threads and processes happen one after another; the commit survives a power cut.
        """

    def read(self) -> AbstractContextManager[Reads]:
        """What was committed last, unchanged for as long as the block lasts; never waits for a writer."""

    def close(self) -> None: ...


class Intake(Protocol):
    """Where the link puts what devices sent."""

    def offer(self, message: Incoming) -> bool:
        """Take the message, or return False at once where there is no room: try again after some `ack`."""

    def refuse(self, code: str, detail: str) -> None:
        """Count a message that stood on no topic of ours."""


class Link(Protocol):
    """The server's one connection to the broker."""

    def publish(self, topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        """Hand over a message; it is sent now or after the next connection. Never blocks on the network."""

    @property
    def connected(self) -> bool: ...


class Clock(Protocol):
    """The server's wall clock."""

    def now_s(self) -> float: ...
