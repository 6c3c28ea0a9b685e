"""The outside world of the agent's loop, in memory."""

import errno
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_agent.core.events import Moment
from device_agent.core.record import Record
from device_agent.log import Log
from fleet_protocol.errors import InstallError, PolicyError
from fleet_protocol.messages import CheckResult
from fleet_protocol.topics import TopicType


class FakeClock:
    """Time that passes when it is told to; luck is always the same."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.luck = 0.5

    def mono_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return 1_800_000_000.0 + self.now_s

    def moment(self) -> Moment:
        return Moment(wall_s=self.wall_s(), mono_s=self.now_s, luck=self.luck)


class FakeJournal:
    """A disk that may be full."""

    def __init__(self) -> None:
        self.saved: list[Record] = []
        self.full = False

    def load(self) -> Record:
        return self.saved[-1] if self.saved else Record()

    def save(self, record: Record) -> None:
        if self.full:
            raise InstallError("no-space")
        self.saved.append(record)


class FakeOutbox:
    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}

    def put(self, counter: int, envelope: bytes) -> None:
        self.kept[counter] = envelope

    def waiting(self) -> list[tuple[int, bytes]]:
        return sorted(self.kept.items())

    def done(self, counter: int) -> None:
        self.kept.pop(counter, None)


class FakeOverseer:
    """Hears what the agent says; minds nothing unless it is told a period."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.due_s: float | None = None

    def ready(self) -> None:
        self.heard.append("ready")

    def alive(self) -> None:
        self.heard.append("alive")

    def stopping(self) -> None:
        self.heard.append("stopping")

    def wake_s(self) -> float | None:
        return self.due_s


class FakeSpool:
    def __init__(self) -> None:
        self.waiting: dict[str, bytes] = {}
        self.kept: dict[str, bytes] = {}
        self.broken: set[str] = set()
        """Calls that the disk refuses."""

    def put(self, kind: TopicType, payload: bytes) -> Path:
        self.waiting[kind.name] = payload
        return Path("/spool") / kind.name

    def accept(self, kind: TopicType) -> None:
        self._refuse("accept")
        self.kept[kind.name] = self.waiting.pop(kind.name)

    def refuse(self, kind: TopicType) -> None:
        self._refuse("refuse")
        self.waiting.pop(kind.name, None)

    def forget(self, kind: TopicType) -> None:
        self._refuse("forget")
        self.kept.pop(kind.name, None)

    def accepted(self, kind: TopicType) -> bytes | None:
        self._refuse("accepted")
        return self.kept.get(kind.name)

    def accepted_path(self, kind: TopicType) -> Path | None:
        return Path("/spool/accepted") if kind.name in self.kept else None

    def _refuse(self, call: str) -> None:
        if call in self.broken:
            raise OSError(errno.EIO, "Input/output error")


@dataclass
class Ordered:
    op: str
    args: Mapping[str, Any]
    done: Callable[[Mapping[str, Any]], None]


class FakeWorker:
    """Remembers what it was asked; the test answers."""

    def __init__(self) -> None:
        self.orders: list[Ordered] = []
        self.history: list[str] = []
        self.cancelled = 0

    def submit(self, op: str, args: Mapping[str, Any], done: Callable[[Mapping[str, Any]], None]) -> None:
        self.orders.append(Ordered(op, args, done))
        self.history.append(op)

    def cancel(self) -> None:
        self.cancelled += 1
        self.orders.clear()

    def answer(self, op: str, result: Mapping[str, Any]) -> None:
        """Answer the running order, which must be `op`, with success."""
        order = self.orders.pop(0)
        assert order.op == op, f"{order.op} runs, not {op}"
        order.done({"ok": True, "result": result})

    def refuse(self, op: str, code: str, detail: str = "", retry_after_s: float | None = None) -> None:
        """Answer the running order, which must be `op`, with a failure."""
        order = self.orders.pop(0)
        assert order.op == op, f"{order.op} runs, not {op}"
        order.done({"ok": False, "code": code, "detail": detail, "retry_after_s": retry_after_s})


@dataclass
class FakeService:
    name: str
    wanted: bool = True
    running: bool = True
    pid: int | None = 4711
    restarts: int = 0
    since_s: float | None = 5.0
    version: str | None = "1.0.0"


@dataclass
class FakeServices:
    services: list[FakeService] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        self.calls.append("start")

    def list(self) -> Sequence[FakeService]:
        return self.services

    def logs(self, service: str, lines: int) -> Sequence[str]:
        return self.lines[-lines:]

    def log_errors(self) -> Mapping[str, float]:
        return self.errors

    def refresh(self) -> None:
        self.calls.append("refresh")

    def stop(self, *, services_too: bool) -> None:
        self.calls.append("stop all" if services_too else "stop")


class FakeProbes:
    def __init__(self) -> None:
        self.results = [CheckResult(name="cpu", value=1.0, threshold=95.0, verdict="ok", text="")]
        self.rounds = 0

    def telemetry(self) -> Mapping[str, float]:
        self.rounds += 1
        return {"cpu_percent": 1.0}

    def checks(self) -> list[CheckResult]:
        if not self.results:
            raise PolicyError("setup", "no readings")
        return self.results


def quiet_log() -> Log:
    """A log that nobody reads."""
    return Log(io.StringIO())
