"""What the agent's loop needs of the outside world."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from device_agent.core.record import Record
from fleet_protocol.messages import CheckResult
from fleet_protocol.topics import TopicType


class Journal(Protocol):
    """The record on disk."""

    def load(self) -> Record:
        """The newest record saved, or a fresh one where there never was any.

        Raises ProtocolError `untrusted` where there is one that cannot be read.
        """

    def save(self, record: Record) -> None:
        """Return only when the record would survive a power cut. A cut during the call leaves old or new."""


class Outbox(Protocol):
    """Signed reports that wait for the broker, in order, bounded, on disk."""

    def put(self, counter: int, envelope: bytes) -> None:
        """Keep the envelope; twice is once. At the bound the oldest report without an outcome goes first."""

    def waiting(self) -> list[tuple[int, bytes]]:
        """All that has not been acknowledged, oldest first."""

    def done(self, counter: int) -> None:
        """The broker has it; unknown counters are ignored."""


class LinkListener(Protocol):
    """Who is told what happens on the link. Called in the link's own thread: it must only take note."""

    def received(self, topic: str, payload: bytes) -> None:
        """A message of a subscription, of any size up to the largest that any topic allows."""

    def oversized(self, topic: str, size: int) -> None:
        """A message beyond every bound was dropped unread."""

    def connected(self) -> None:
        """The broker took the connection, `online` is published and the subscriptions are made again."""

    def lost(self, why: str) -> None:
        """The connection is gone; the link tries again by itself."""


class Link(Protocol):
    """The MQTT connection of the resident."""

    def start(self) -> None: ...
    def stop(self) -> None:
        """Publish `offline`, disconnect, and end the link's thread."""

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, sent: Callable[[], None] | None = None
    ) -> None:
        """Hand over a message; `sent` is called once the broker acknowledged it (QoS 1)."""

    def subscribe(self, filters: tuple[str, ...]) -> None:
        """Keep these subscriptions over reconnects, beside those already made."""

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        """Drop these subscriptions; unknown ones are ignored."""

    @property
    def connected(self) -> bool: ...


class RetainedReader(Protocol):
    """Reads one retained document when it is wanted."""

    def read(self, topic: str, *, timeout_s: float) -> bytes | None:
        """The retained payload, or None where the broker holds none. Raises TransportError `timeout`."""


class Worker(Protocol):
    """Runs one heavy effect at a time in a process of its own."""

    def submit(self, op: str, args: Mapping[str, Any], done: Callable[[Mapping[str, Any]], None]) -> None:
        """Run `op`; `done` gets its answer `{"ok": bool, ...}` exactly once, unless cancelled."""

    def cancel(self) -> None:
        """Kill what is running; its `done` is never called."""


class ServiceView(Protocol):
    """How one service is; `device_agent.supervisor` fills it in."""

    @property
    def name(self) -> str: ...
    @property
    def wanted(self) -> bool: ...
    @property
    def running(self) -> bool: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def restarts(self) -> int: ...
    @property
    def since_s(self) -> float | None:
        """Seconds since its start; None where it does not run."""

    @property
    def version(self) -> str | None: ...


class Services(Protocol):
    """The services that this device runs, as the resident sees and keeps them."""

    def start(self) -> None:
        """Start what ought to run, and keep it running until `stop`."""

    def list(self) -> Sequence[ServiceView]:
        """All of them, by name. Raises FleetError where their state can not be read."""

    def logs(self, service: str, lines: int) -> Sequence[str]:
        """The newest lines, oldest first. Raises FleetError `schema` for what is no name."""

    def log_errors(self) -> Mapping[str, float]:
        """Error lines a minute by service, since the last call; a service that is new since then is left out."""

    def refresh(self) -> None:
        """Look again: a worker may have started or stopped one."""

    def stop(self, *, services_too: bool) -> None:
        """Keep nothing running any more; with `services_too` end every service that only the agent keeps running."""


class Spool(Protocol):
    """Raw documents where workers can read them. All may raise OSError."""

    def put(self, kind: TopicType, payload: bytes) -> Path:
        """Where a worker finds the waiting document of this kind."""

    def accept(self, kind: TopicType) -> None:
        """The waiting document is from now on the accepted one."""

    def refuse(self, kind: TopicType) -> None:
        """The waiting document is of no use."""

    def forget(self, kind: TopicType) -> None:
        """The accepted document is of no use any more."""

    def accepted(self, kind: TopicType) -> bytes | None:
        """The newest accepted document."""

    def accepted_path(self, kind: TopicType) -> Path | None:
        """Where it is."""


class Probes(Protocol):
    """Readings of this machine."""

    def telemetry(self) -> Mapping[str, float]: ...
    def checks(self) -> list[CheckResult]: ...


class Overseer(Protocol):
    """Whoever started the agent, and starts it anew where its loop stands still."""

    def ready(self) -> None:
        """The agent does its work now."""

    def alive(self) -> None:
        """The loop went round."""

    def stopping(self) -> None:
        """The agent ends in good order."""

    def wake_s(self) -> float | None:
        """The monotonic moment at which the loop has to go round at the latest; None where nobody minds."""
