"""Keeps services running: notices an end at once, restarts with backoff, bounds the logs.

One thread of the resident. It sleeps on the kernel's own notice (pidfd) and wakes at most once a minute
otherwise, unless a log grows quickly.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from device_agent.supervisor import service_log
from device_agent.supervisor.process import ProcessId, held, reap
from device_agent.supervisor.supervisor import Supervisor
from fleet_protocol.errors import FleetError

_LOOK_S: Final = 60.0
_BUSY_S: Final = 1.0
_BACKOFF_FIRST_S: Final = 1.0
_BACKOFF_MOST_S: Final = 60.0
_STABLE_S: Final = 60.0
"""A process that lived this long pays off its predecessors' failures."""


@dataclass(slots=True)
class _Watched:
    """One service as the thread sees it. Times are monotonic."""

    process: ProcessId | None = None
    pidfd: int = -1
    seen_s: float = 0.0
    failures: int = 0
    due_s: float | None = None
    log_size: int = 0


class Watch:
    """Watches the services of one supervisor until it is stopped. One per device, in the resident."""

    def __init__(self, supervisor: Supervisor, notice: Callable[[str, str], None], *, patience: float = 1.0) -> None:
        """`notice(service, text)` is called in the thread, for the log. `patience` scales the backoff."""
        self._supervisor, self._notice, self._patience = supervisor, notice, patience
        self._watched: dict[str, _Watched] = {}
        self._stopping = False
        self._wake_reading, self._wake_writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Start what ought to run and does not, and watch it from now on."""
        self._thread.start()

    def refresh(self) -> None:
        """Look again now; called after a worker may have started or stopped a service. From any thread."""
        os.write(self._wake_writing, b"\0")

    def stop(self) -> None:
        """End the thread; services are left as they are. Once only."""
        self._stopping = True
        self.refresh()
        if self._thread.ident is not None:
            self._thread.join()
        for watched in self._watched.values():
            _let_go(watched)
        os.close(self._wake_reading)
        os.close(self._wake_writing)

    def _run(self) -> None:
        while not self._stopping:
            wait_s = min([_LOOK_S, *(self._tend(service) for service in self._services())])
            self._sleep(wait_s)

    def _services(self) -> list[str]:
        try:
            names = list(self._supervisor.names())
        except OSError as error:
            self._notice("", f"services can not be listed: {error}")
            return []
        for gone in set(self._watched) - set(names):
            _let_go(self._watched.pop(gone))
        return names

    def _tend(self, service: str) -> float:
        """Look at one service; returns after how many seconds it wants to be looked at again."""
        watched = self._watched.setdefault(service, _Watched())
        try:
            log_s = self._bound_log(service, watched)
            process = self._supervisor.process(service)
            if process is not None:
                return min(log_s, self._hold(watched, process))
            return min(log_s, self._revive(service, watched))
        except (FleetError, OSError) as error:
            self._notice(service, f"{error}")
            self._fail(watched, watched.failures + 1)
            return self._backoff_s(watched)

    def _hold(self, watched: _Watched, process: ProcessId) -> float:
        """Be told of the process's end; where it ended meanwhile, look again at once."""
        watched.due_s = None
        if watched.process == process and watched.pidfd >= 0:
            return _LOOK_S
        _let_go(watched)
        with held(process) as pidfd:
            if pidfd is not None:
                watched.pidfd = os.dup(pidfd)
        watched.process, watched.seen_s = process, time.monotonic()
        return _LOOK_S if watched.pidfd >= 0 else 0.0

    def _revive(self, service: str, watched: _Watched) -> float:
        """The service does not run: start it if it ought to run and its backoff is over."""
        now_s = time.monotonic()
        if watched.process is not None:
            stable = now_s - watched.seen_s >= _STABLE_S * self._patience
            _let_go(watched)
            self._fail(watched, 0 if stable else watched.failures + 1)
        if not self._supervisor.status(service).wanted:
            watched.failures, watched.due_s = 0, None
            return _LOOK_S
        if watched.due_s is not None and now_s < watched.due_s:
            return watched.due_s - now_s
        return self._restart(service, watched)

    def _restart(self, service: str, watched: _Watched) -> float:
        done = self._supervisor.restart(service)
        if done is None:
            return _BUSY_S
        if done:
            self._notice(service, "started")
        process = self._supervisor.process(service)
        if process is not None:
            return self._hold(watched, process)
        self._fail(watched, watched.failures + 1)
        return self._backoff_s(watched)

    def _fail(self, watched: _Watched, failures: int) -> None:
        watched.failures = failures
        watched.due_s = time.monotonic() + self._backoff_s(watched) if failures else None

    def _backoff_s(self, watched: _Watched) -> float:
        doubled: float = _BACKOFF_FIRST_S * 2.0 ** min(max(0, watched.failures - 1), 10)
        return min(_BACKOFF_MOST_S, doubled) * self._patience

    def _bound_log(self, service: str, watched: _Watched) -> float:
        """Rotate, and come back before the log could have grown much beyond its bound again."""
        size = service_log.bound(self._supervisor.directory(service).log)
        grown = abs(size - watched.log_size)
        watched.log_size = size
        return _BUSY_S if grown > service_log.SIZE_MOST // 8 else _LOOK_S

    def _sleep(self, wait_s: float) -> None:
        poller = select.poll()
        poller.register(self._wake_reading, select.POLLIN)
        for watched in self._watched.values():
            if watched.pidfd >= 0:
                poller.register(watched.pidfd, select.POLLIN)
        for descriptor, _ in poller.poll(max(0.0, wait_s) * 1000):
            if descriptor == self._wake_reading:
                os.read(self._wake_reading, 4096)


def _let_go(watched: _Watched) -> None:
    if watched.pidfd >= 0:
        os.close(watched.pidfd)
    if watched.process is not None:
        reap(watched.process.pid)
    watched.pidfd, watched.process = -1, None
