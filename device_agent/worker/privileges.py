"""Gives up all privileges, for the rest of the process's life.

1. Afterwards the process is the account and nothing more: no group beside the account's own, no capability, none to be
   had again by running a program, no core dump, no look into it by other processes of the account.
2. The kernel is asked afterwards whether it is so; a process that kept anything does not go on.
3. It is done in the main thread before there is another: `no_new_privs` is each thread's own (prctl(2)).
"""

import ctypes
import os
import resource
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from device_agent.identity import WorkerUser
from fleet_protocol.errors import PolicyError

ADDRESS_SPACE_BYTES: Final = 1024 * 1024 * 1024
"""Some twenty times what verifying or fetching takes."""
PROCESSES: Final = 128
"""Of the account, threads included: workers start threads, but nothing that could multiply."""
_SET_DUMPABLE: Final = 4
_SET_NO_NEW_PRIVS: Final = 38
"""From linux/prctl.h."""
_STATUS: Final = Path("/proc/self/status")


def become(user: WorkerUser) -> None:
    """Be `user` and nothing more, for good; raises PolicyError `setup` where that is not so afterwards."""
    if threading.active_count() != 1:
        raise AssertionError("privileges are given up before the first thread starts")
    try:
        _prctl(_SET_NO_NEW_PRIVS, 1)
        _limit(resource.RLIMIT_AS, ADDRESS_SPACE_BYTES)
        _limit(resource.RLIMIT_NPROC, PROCESSES)
        _limit(resource.RLIMIT_CORE, 0)
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        _prctl(_SET_DUMPABLE, 0)
    except (OSError, ValueError) as error:
        raise PolicyError("setup", f"can not become {user.name}: {error}") from None
    kept = _kept(user)
    if kept:
        raise PolicyError("setup", f"as {user.name} this process still has {', '.join(kept)}")


def _limit(kind: int, most: int) -> None:
    """A limit that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (bound, bound))


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def _kept(user: WorkerUser) -> list[str]:
    """Rule 2, from /proc/self/status (proc_pid_status(5))."""
    fields = _status()
    wanted = {
        "Uid": [str(user.uid)] * 4,
        "Gid": [str(user.gid)] * 4,
        "Groups": [],
        "CapPrm": ["0" * 16],
        "CapEff": ["0" * 16],
        "CapAmb": ["0" * 16],
        "NoNewPrivs": ["1"],
    }
    return [f"{name} {' '.join(fields.get(name, ()))}" for name, value in wanted.items() if fields.get(name) != value]


def _status() -> Mapping[str, list[str]]:
    lines = _STATUS.read_text("ascii", errors="replace").splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
