"""Starts a service's process, whole or not at all."""

import fcntl
import os
import select
import sys
from pathlib import Path
from typing import Final

from device_agent.installers.crash import crash_point
from device_agent.supervisor import launch
from device_agent.supervisor.process import reap
from device_agent.supervisor.service_dir import ServiceDir
from device_agent.supervisor.service_log import open_log
from fleet_protocol.errors import InstallError

_FREE: Final = 10
"""Descriptors are moved up here first, so that none is overwritten while they are put into place."""
_ANSWER_S: Final = 30.0


def spawn(directory: ServiceDir, lock: int, restarts: int) -> None:
    """Return once the service's program runs and pid.json names it; InstallError `start` where it can not.

    The child is the caller's: it is reaped by whoever calls `reap` later, or by init when the caller ends.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = _start(directory, lock, writing, restarts)
        finally:
            os.close(writing)
        crash_point("service.after_spawn")
        answer = _answer(reading)
    finally:
        os.close(reading)
    if answer is not None:
        os.waitpid(pid, 0)
        raise InstallError("start", answer)
    reap(pid)


def _start(directory: ServiceDir, lock: int, writing: int, restarts: int) -> int:
    log, null = open_log(directory.log), os.open(os.devnull, os.O_RDONLY)
    opened = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FREE) for fd in (null, log, lock, writing)]
    os.close(log)
    os.close(null)
    places = zip((opened[0], opened[1], opened[1], opened[2], opened[3]), range(5), strict=True)
    program = Path(launch.__file__)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(program), str(directory.path), str(restarts)],
            {"LANG": "C.UTF-8"},
            file_actions=[(os.POSIX_SPAWN_DUP2, source, place) for source, place in places],
            setsid=True,
        )
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _answer(reading: int) -> str | None:
    """None once `execve` closed the other end; what went wrong otherwise."""
    poller = select.poll()
    poller.register(reading, select.POLLIN)
    if not poller.poll(_ANSWER_S * 1000):
        raise InstallError("start", "the service's launcher does not answer")
    return os.read(reading, 1_024).decode("utf-8", errors="replace") or None
