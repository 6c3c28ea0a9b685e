"""The resident's end of the worker: device_agent.ports.Worker on a process per operation. Standard library only.

1. One operation at a time, in the order of their submission; at most `WAITING_MOST` wait.
2. `done` is called exactly once per operation that was not cancelled, from this lane's own thread.
3. A worker that dies, says nonsense, says or wants too much or falls silent for too long has the code `worker`; one
   that is killed, which is what the kernel does where memory runs out, `no-memory`.
4. Cancelling kills the worker's whole process group, and waits for no document that the worker had asked for.
5. A worker that is to become another user learns nothing from the agent's environment but how to run Python.
"""

import base64
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from device_agent.installers.crash import ENVIRONMENT
from device_agent.ports import RetainedReader
from device_agent.worker import LINE_SIZE, answers
from device_agent.worker.answers import Answer
from device_agent.worker.operations import OPERATIONS
from fleet_protocol import limits
from fleet_protocol.errors import ProtocolError, TransportError

WAITING_MOST: Final = 64
_DYING_S: Final = 1.0
"""How long the end of a process may come after the end of its output."""
WANTS_MOST: Final = 2 * limits.ROOT_ROTATIONS
"""Documents of one operation: the longest chain of roots, and what else a refresh reads, with room to spare."""
_HARMLESS: Final = frozenset({ENVIRONMENT, "LANG", "MALLOC_ARENA_MAX", "PATH", "TZ"})
_HARMLESS_FORMS: Final = ("LC_", "LD_", "PYTHON", "SSL_CERT_")
_NONSENSE: Final = (ProtocolError, OSError, ValueError, TypeError, MemoryError)
"""What talking with a broken worker may raise."""


@dataclass(slots=True, eq=False)
class _Order:
    """One operation, from its submission to its answer."""

    op: str
    args: Mapping[str, Any]
    done: Callable[[Answer], None]
    process: "subprocess.Popen[bytes] | None" = None
    cancelled: bool = False


class WorkerProcess:
    """One lane of work. The agent has one for documents and one for installing, so that a recall is seen meanwhile."""

    def __init__(
        self,
        config: Path,
        reader: RetainedReader,
        *,
        progress: Callable[[str, float], None] = lambda _op, _share: None,
        command: Sequence[str] = (sys.executable, "-P", "-m", "device_agent.worker"),
        want_timeout_s: float = 30.0,
        silence_s: float = 3600.0,
        worker_user: bool = False,
    ) -> None:
        """`worker_user` says that operations without privileges will not have the agent's identity."""
        self._config, self._reader, self._progress = config, reader, progress
        self._command, self._want_timeout_s, self._silence_s = tuple(command), want_timeout_s, silence_s
        self._worker_user = worker_user
        self._changed = threading.Condition()
        self._waiting: deque[_Order] = deque()
        self._running: _Order | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> str | None:
        """The name of the operation that runs now."""
        running = self._running
        return None if running is None else running.op

    def submit(self, op: str, args: Mapping[str, Any], done: Callable[[Answer], None]) -> None:
        """Run `op` after those submitted before. Beyond the bound `done` is called at once, with code `busy`."""
        with self._changed:
            full = self._closed or len(self._waiting) >= WAITING_MOST
            if not full:
                self._waiting.append(_Order(op, args, done))
                self._changed.notify_all()
                if self._thread is None:
                    self._thread = threading.Thread(target=self._serve, name="worker", daemon=True)
                    self._thread.start()
        if full:
            done(_failure("busy", "too many operations wait"))

    def cancel(self, ops: Container[str] | None = None) -> None:
        """Kill what is running and forget what waits, or only those of `ops`; their `done` is never called."""
        with self._changed:
            self._waiting = deque(order for order in self._waiting if ops is not None and order.op not in ops)
            running = self._running
            if running is not None and (ops is None or running.op in ops):
                running.cancelled = True
                _kill(running.process)
                self._changed.notify_all()

    def close(self) -> None:
        """Cancel everything and return when no worker of this lane is left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.cancel()
        if self._thread is not None:
            self._thread.join()

    def _serve(self) -> None:
        while (order := self._next()) is not None:
            answer = self._carry_out(order)
            with self._changed:
                self._running = None
                cancelled = order.cancelled
            if not cancelled:
                order.done(answer)

    def _next(self) -> _Order | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _carry_out(self, order: _Order) -> Answer:
        try:
            process = subprocess.Popen(  # noqa: S603 - fixed command
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env=_environment(order.op) if self._worker_user else None,
                start_new_session=True,
            )
        except OSError as error:
            return _failure("worker", f"the worker could not be started: {error.strerror}")
        with process:
            with self._changed:
                order.process = process
                if order.cancelled:
                    _kill(process)
            try:
                return self._converse(order, process)
            except _NONSENSE as error:
                return _failure("worker", f"{order.op}: {error}")
            finally:
                self._end(order)

    def _end(self, order: _Order) -> None:
        """Whatever is left of the worker ends before the next starts; from here on its id is not used again."""
        with self._changed:
            _kill(order.process)
            order.process = None

    def _converse(self, order: _Order, process: "subprocess.Popen[bytes]") -> Answer:
        _write(process, {"op": order.op, "args": order.args, "config": str(self._config)})
        lines, wants = _Lines(process, self._silence_s), 0
        while (line := lines.next()) is not None:
            message = answers.read(line)
            if "want" in message:
                wants += 1
                if wants > WANTS_MOST:
                    raise ValueError("the worker wants too many documents")
                answer = self._wanted(order, str(message["want"]))
                if answer is None:
                    break
                _write(process, answer)
            elif "progress" in message:
                self._progress(order.op, answers.share(message["progress"]))
            elif "alive" in message:
                continue  # it was no silence, that is all
            else:
                return answers.answer(order.op, message)
        if _was_killed(process):
            return _failure("no-memory", f"{order.op}: killed, as the kernel does where memory runs out")
        return _failure("worker", f"{order.op}: died without an answer")

    def _wanted(self, order: _Order, topic: str) -> Answer | None:
        """What the reader has to say of a topic, or None once the operation is cancelled (rule 4)."""
        found: list[Answer] = []
        threading.Thread(target=self._read, args=(topic, found), name="want", daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: found or order.cancelled)
            return found[0] if found else None

    def _read(self, topic: str, found: list[Answer]) -> None:
        answer: Answer = {"topic": topic, "code": "unreachable", "detail": "the reader failed"}
        try:
            payload = self._reader.read(topic, timeout_s=self._want_timeout_s)
            answer = {"topic": topic, "payload": None if payload is None else base64.b64encode(payload).decode("ascii")}
        except TransportError as error:
            answer = {"topic": topic, "code": error.code, "detail": error.detail}
        finally:
            with self._changed:
                found.append(answer)
                self._changed.notify_all()


class _Lines:
    """Bounded lines of a worker's standard output, each within `silence_s` of the one before."""

    def __init__(self, process: "subprocess.Popen[bytes]", silence_s: float) -> None:
        assert process.stdout is not None
        self._descriptor = process.stdout.fileno()
        self._silence_s = silence_s
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)
        self._held = bytearray()

    def next(self) -> bytes | None:
        """The next line, or None at the end. Raises ValueError for one that is too long, OSError for silence."""
        until_s = time.monotonic() + self._silence_s
        searched = 0
        while (end := self._held.find(b"\n", searched)) < 0:
            searched = len(self._held)
            if searched > LINE_SIZE:
                raise ValueError("a line is too long")
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not self._poll.poll(left_s * 1000):
                raise TimeoutError("the worker fell silent")
            chunk = os.read(self._descriptor, 64 * 1024)
            if not chunk:
                return None
            self._held += chunk
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line


def _environment(op: str) -> Mapping[str, str] | None:
    """Rule 5; None means the agent's own."""
    operation = OPERATIONS.get(op)
    if operation is None or operation.privileged:
        return None
    return {name: value for name, value in os.environ.items() if name in _HARMLESS or name.startswith(_HARMLESS_FORMS)}


def _write(process: "subprocess.Popen[bytes]", value: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    view = memoryview(json.dumps(value, allow_nan=False, separators=(",", ":")).encode() + b"\n")
    while view:
        view = view[os.write(process.stdin.fileno(), view) :]


def _failure(code: str, detail: str) -> Answer:
    return {"ok": False, "code": code, "detail": detail, "retry_after_s": None}


def _was_killed(process: "subprocess.Popen[bytes]") -> bool:
    """Whether somebody else killed it; one that only closed its output is not waited for."""
    try:
        return process.wait(_DYING_S) == -signal.SIGKILL
    except subprocess.TimeoutExpired:
        return False


def _kill(process: "subprocess.Popen[bytes] | None") -> None:
    """End the worker and everything that it started in its own group."""
    if process is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
