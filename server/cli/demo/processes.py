"""The demo's processes: started, started again when killed, and all gone at the end."""

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

import psutil

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_STOP_S: Final = 10.0
_CALM_S: Final = 1.0
"""A process that ended sooner than this after its start waits as long before it is started again."""


@dataclass(slots=True)
class _Cast:
    """One named process and how to start it."""

    name: str
    argv: Sequence[str]
    log: Path
    running: subprocess.Popen[bytes] | None = None
    started_s: float = field(default=0.0)


class Processes:
    """Owns every process of the demo. Single-threaded, and the main thread: whoever waits does it with `wait`.

    The demo makes itself the reaper of its descendants, so that a service whose agent was killed
    comes back to it and can be ended. If the demo itself is killed, the kernel tells its children.
    """

    def __init__(self, logs: Path, environment: Mapping[str, str], on_restart: Callable[[str, int], None]) -> None:
        self._logs = logs
        self._environment = dict(environment)
        self._on_restart = on_restart
        self._cast: dict[str, _Cast] = {}
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._bell, self._rope = socket.socketpair()
        for end in (self._bell, self._rope):
            end.settimeout(0)
        descriptor = signal.set_wakeup_fd(self._rope.fileno(), warn_on_full_buffer=False)
        self._before = signal.signal(signal.SIGCHLD, _heard), descriptor

    def wait(self, most_s: float | None = None) -> None:
        """Return when a process has ended or after `most_s`, with everything tended; a signal interrupts it at once."""
        select.select([self._bell], [], [], self._until_due(most_s))
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(4_096)
        self.tend()

    def start(self, name: str, argv: Sequence[str]) -> None:
        """Start a process under a name that is not taken; its output goes to `<logs>/<name>.log`."""
        cast = self._cast[name] = _Cast(name, argv, self._logs / f"{name}.log")
        self._spawn(cast)

    def tend(self) -> None:
        """Start again what was killed, and reap what nobody else waits for."""
        for cast in self._cast.values():
            if cast.running is not None and cast.running.poll() is not None:
                self._on_restart(cast.name, cast.running.returncode)
                cast.running = None
            if cast.running is None and time.monotonic() - cast.started_s >= _CALM_S:
                self._spawn(cast)
        self._reap_adopted()

    def alive(self, name: str) -> bool:
        """Whether the named process runs now."""
        running = self._cast[name].running
        return running is not None and running.poll() is None

    def log_of(self, name: str) -> Path:
        """Where the named process writes."""
        return self._cast[name].log

    def stop(self) -> None:
        """Ask every process to end, newest first; after 10 s insist. Nothing of the demo is left."""
        for cast in reversed(list(self._cast.values())):
            if cast.running is not None and cast.running.poll() is None:
                cast.running.terminate()
                try:
                    cast.running.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    cast.running.kill()
                    cast.running.wait()
        self._cast.clear()
        self._end_descendants()
        handler, descriptor = self._before
        signal.signal(signal.SIGCHLD, handler)
        signal.set_wakeup_fd(descriptor)
        self._bell.close()
        self._rope.close()

    def _until_due(self, most_s: float | None) -> float | None:
        """Until a process that ended too soon after its start may be started again, if that is less."""
        now_s = time.monotonic()
        waits_s = [cast.started_s + _CALM_S - now_s for cast in self._cast.values() if cast.running is None]
        waits_s += [] if most_s is None else [most_s]
        return max(0.0, min(waits_s)) if waits_s else None

    def _spawn(self, cast: _Cast) -> None:
        with cast.log.open("ab") as log:
            cast.running = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                cast.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                # Ctrl-C in the terminal goes to the demo alone, which ends the others in order.
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - the demo has one thread
            )
        cast.started_s = time.monotonic()

    def _reap_adopted(self) -> None:
        own = {cast.running.pid for cast in self._cast.values() if cast.running is not None}
        for child in psutil.Process().children():
            if child.pid not in own and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)

    def _end_descendants(self) -> None:
        left = psutil.Process().children(recursive=True)
        for process in left:
            _signal(process, signal.SIGTERM)
        _, stubborn = psutil.wait_procs(left, timeout=3)
        for process in stubborn:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(stubborn, timeout=3)


def _heard(_number: int, _frame: FrameType | None) -> None:
    """Nothing: the byte that Python writes for a signal is what `wait` wakes of."""


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _end_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
