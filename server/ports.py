"""What the use cases need of the outside world. Each port has one contract suite for all its adapters."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

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


class Work(Protocol):
    """One transaction. Everything put is visible to later reads of the same transaction."""

    def device(self, device_id: str) -> Device | None: ...
    def devices(self, group: str | None = None) -> list[Device]: ...
    def put_device(self, device: Device) -> None: ...
    def touch_devices(self, seen: Sequence[tuple[str, float]]) -> None:
        """Raise `seen_s` of many devices at once; unknown ids are ignored."""

    def group(self, name: str) -> Group | None: ...
    def groups(self) -> list[Group]: ...
    def put_group(self, group: Group) -> None: ...

    def job(self, job_id: str) -> Job | None: ...
    def jobs(self, group: str | None = None) -> list[Job]: ...
    def put_job(self, job: Job) -> None: ...
    def rollout(self, rollout_id: str) -> Rollout | None: ...
    def rollouts(self, group: str | None = None, state: RolloutState | None = None) -> list[Rollout]: ...
    def put_rollout(self, rollout: Rollout) -> None: ...

    def attempt(self, deployment: str, device: str) -> AttemptSeen | None: ...
    def attempts(self, deployment: str) -> list[AttemptSeen]: ...
    def put_attempts(self, attempts: Sequence[AttemptSeen]) -> None:
        """Insert or replace by (deployment, device)."""

    def put_readings(self, readings: Sequence[Reading]) -> None:
        """Keep the newest of each (device, kind)."""

    def readings(self, device: str) -> list[Reading]: ...

    def document(self, topic: str) -> bytes | None: ...
    def documents(self) -> list[tuple[str, bytes]]:
        """Every retained document that the broker ought to hold, by topic."""

    def put_document(self, topic: str, payload: bytes | None) -> None:
        """Remember what a retained topic must hold; None means that it must be empty."""

    def audit(self, entry: AuditEntry) -> None: ...
    def audit_entries(self, most: int) -> list[AuditEntry]:
        """The newest first."""


class Store(Protocol):
    """The server's memory."""

    def begin(self) -> AbstractContextManager[Work]:
        """A transaction that commits when the block ends and leaves nothing behind when it raises."""

    def close(self) -> None: ...


class Link(Protocol):
    """The server's one connection to the broker."""

    def publish(self, topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        """Hand over a message; it is sent now or after the next connection. Never blocks on the network."""

    @property
    def connected(self) -> bool: ...


class Clock(Protocol):
    """The server's wall clock."""

    def now_s(self) -> float: ...
