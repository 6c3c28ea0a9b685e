"""The lock that whoever changes Debian packages holds: dpkg's `lock-frontend` (dpkg(1), DPKG_FRONTEND_LOCKED).

It is a record lock of fcntl(2), so that it is gone with the process that holds it, and nothing is ever left locked.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fleet_protocol.errors import InstallError

HELD: Final = {"DPKG_FRONTEND_LOCKED": "1"}
"""Tells dpkg that its caller has the lock."""
_LOCK: Final = "var/lib/dpkg/lock-frontend"
_LOCKS: Final = Path("/proc/locks")
_PAUSE_S: Final = 0.2


@contextmanager
def frontend_lock(root: Path, wait_s: float) -> Iterator[None]:
    """Nobody else changes packages below `root` within the block. Raises InstallError `locked` after `wait_s`."""
    place = root / _LOCK
    try:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    except FileNotFoundError:
        raise InstallError("unsupported", "this device keeps no Debian packages") from None
    try:
        _take(descriptor, wait_s)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, wait_s: float) -> None:
    until_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= until_s:
                raise InstallError("locked", f"{_holder(descriptor)} holds the package manager") from None
            time.sleep(_PAUSE_S)
        else:
            return


def _holder(descriptor: int) -> str:
    """Who has the lock, for people, as /proc/locks has it (proc_locks(5))."""
    inode = str(os.fstat(descriptor).st_ino)
    for line in _LOCKS.read_text().splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[1] == "POSIX" and fields[5].rpartition(":")[2] == inode:
            name = Path("/proc", fields[4], "comm")
            return f"{name.read_text().strip()} (process {fields[4]})" if name.exists() else f"process {fields[4]}"
    return "another program"
