"""Processes that other processes started, told apart from whatever has their number today.

A process is named by its number, the kernel's start time in ticks since boot, and the boot. The wall clock is
not part of it: it is set while devices start, and creation times that are computed from it move with it.
"""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_KILL_S: Final = 10.0
"""How long the kernel may take to end a killed process; longer means that it hangs in a driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """One process of one boot."""

    pid: int
    start_ticks: int
    boot: str


@dataclass(frozen=True, slots=True)
class _Row:
    """What /proc/<pid>/stat says (proc_pid_stat(5))."""

    pid: int
    state: str
    group: int
    session: int
    start_ticks: int


def boot_id() -> str:
    """The kernel's random name of this boot."""
    return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()


def identify(pid: int) -> ProcessId | None:
    """The identity of a live process, or None; a zombie is not alive."""
    row = _row(pid)
    return None if row is None else ProcessId(pid=pid, start_ticks=row.start_ticks, boot=boot_id())


def is_alive(process: ProcessId) -> bool:
    """Whether exactly this process runs."""
    return identify(process.pid) == process


def age_s(process: ProcessId) -> float:
    """Seconds since the process was started."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - process.start_ticks / os.sysconf("SC_CLK_TCK"))


@contextmanager
def held(process: ProcessId) -> Iterator[int | None]:
    """A pidfd of exactly this process, or None where it is gone: what is signalled is what was checked."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:  # gone, or its number is now that of another process's thread
        yield None
        return
    try:
        yield descriptor if is_alive(process) else None
    finally:
        os.close(descriptor)


def wait_gone(pidfd: int, timeout_s: float) -> bool:
    """Whether the process ended within the time."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(max(0.0, timeout_s) * 1000))


def reap(pid: int) -> None:
    """Collect the process if it is a child of ours that has ended; otherwise nothing happens."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def signal_group(process: ProcessId, number: signal.Signals) -> None:
    """Signal everything in the session that `process` leads or led, its own groups included."""
    for row in _members(process):
        with suppress(ProcessLookupError):
            os.kill(row.pid, number)


def end_group(process: ProcessId) -> bool:
    """SIGKILL to all that is left of the service's session; True once nothing of it runs any more."""
    deadline = time.monotonic() + _KILL_S
    while members := _members(process):
        signal_group(process, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        _wait_any(members)
        reap(process.pid)
    reap(process.pid)
    return True


def _wait_any(rows: list[_Row]) -> None:
    """Wait until one of them ends, or a moment: a member may have been born since."""
    try:
        pidfd = os.pidfd_open(rows[0].pid)
    except OSError:  # gone already
        return
    try:
        wait_gone(pidfd, 0.1)
    finally:
        os.close(pidfd)


def _members(process: ProcessId) -> list[_Row]:
    """Live processes of the session that `process` leads.

    The kernel gives a number to no new process while a session of that name has members, so a leader with the
    number but another start time means that the session is long gone.
    """
    if process.boot != boot_id():
        return []
    leader = _row(process.pid)
    if leader is not None and leader.start_ticks != process.start_ticks:
        return []
    rows = (_row(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdecimal())
    return [row for row in rows if row is not None and process.pid in (row.session, row.group)]


def _row(pid: int) -> _Row | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text("ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    row = _Row(pid, fields[0], int(fields[2]), int(fields[3]), int(fields[19]))
    return None if row.state in ("Z", "X") else row
