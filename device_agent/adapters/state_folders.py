"""Who owns what below the state directory, where the agent is root and its workers are not.

1. The state directory is root's: nobody else can replace one of its folders. Others may pass through it, not look.
2. What installing rests on is the agent's alone. The worker user has what verifying and fetching write, and the
   device key; what the resident hands to it is readable by its group.
3. A folder that comes to another owner is handed over from its leaves to itself, so that a power cut on the way
   leaves one that is handed over again. Only what belonged to the owner before is handed over, and has no name
   elsewhere: whoever had the folder may have planted links to files of others. No link is followed, all are removed.
4. Services that run as other users pass through the state directory to their slots, and a user's service manager to
   what says whether its unit is quiet. An installer lets them pass; that is not taken back here.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from device_agent.adapters.files import make_dir
from device_agent.adapters.foreign_folder import remove_at
from device_agent.identity import WorkerUser
from fleet_protocol.errors import PolicyError

Side = Literal["agent", "worker", "shared"]
FOLDERS: Final[Mapping[str, Side]] = {
    "backup": "agent",
    "brought": "agent",
    "cache": "worker",
    "journal": "agent",
    "outbox": "agent",
    "services": "agent",
    "slots": "agent",
    "spool": "shared",
    "trust": "worker",
}
KEY: Final = "device.pem"
_DEPTH: Final = 1
"""Directories below a folder; deeper ones are none of ours."""
_PASSING: Final = 0o011
_PASSED: Final = frozenset({"services", "slots"})
_PLAIN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def make_state_dir(state_dir: Path) -> None:
    """The state directory exists, mode 0700 where it is new, and all may pass through what leads to it."""
    make_dir(state_dir.parent, 0o755)
    make_dir(state_dir)


def lay_out(state_dir: Path, user: WorkerUser | None) -> None:
    """The state directory and its folders belong to whom they should; changes nothing unless this process is root.

    Raises PolicyError `setup` where the worker user could get no footing in somebody else's directory, OSError.
    """
    if os.geteuid() != 0:
        return
    make_state_dir(state_dir)
    with _opened(state_dir) as top:
        owner = os.fstat(top).st_uid
        if owner != 0:
            if user is not None:
                raise PolicyError(
                    "setup", f"{state_dir} belongs to user {owner}, not to root: chown -R root {state_dir}"
                )
            return
        for name, side in FOLDERS.items():
            if user is not None and side != "agent":
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=top)
            with suppress(FileNotFoundError), _opened(name, top) as folder:
                _settle(folder, side, user, kept=_PASSING if name in _PASSED else 0)
        _settle_file(top, KEY, *_ids(user), 0o600)
        os.fchmod(top, state_mode(user, os.fstat(top).st_mode))
        os.fsync(top)


def state_mode(user: WorkerUser | None, mode: int = 0) -> int:
    """The state directory's mode, where it has `mode` now (rule 4)."""
    return (0o700 if user is None else 0o711) | mode & _PASSING


def _settle(folder: int, side: Side, user: WorkerUser | None, *, kept: int) -> None:
    """One folder, by rule 2; `kept` are the bits of its mode that stay (rule 4)."""
    uid, gid = _ids(user)
    if side == "worker":
        before = os.fstat(folder).st_uid
        if before != uid:
            _Handover(before, uid, gid).run(folder)
    if side == "shared":
        for name in os.listdir(folder):
            _settle_file(folder, name, 0, gid, 0o640)
        os.fchown(folder, 0, gid)
    shared = side == "shared" and user is not None
    kept &= os.fstat(folder).st_mode
    os.fchmod(folder, 0o2750 if shared else 0o700 | kept)  # what is written into a shared one gets its group


def _settle_file(folder: int, name: str, uid: int, gid: int, mode: int) -> None:
    """A file that only root can have put where it is; a link of root's may stay, but is not followed."""
    with suppress(FileNotFoundError):
        if uid == 0 and stat.S_ISLNK(_looked_at(name, folder).st_mode):
            return
        descriptor = os.open(name, _PLAIN, dir_fd=folder)
        try:
            os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)


def _ids(user: WorkerUser | None) -> tuple[int, int]:
    return (0, 0) if user is None else (user.uid, user.gid)


class _Handover:
    """Rule 3, for one folder."""

    def __init__(self, before: int, uid: int, gid: int) -> None:
        self._before, self._uid, self._gid = before, uid, gid
        self._elsewhere: dict[int, int] = {}
        """How many names each file has outside of the folder, by its number."""

    def run(self, folder: int) -> None:
        """The folder's content, and then the folder."""
        self._count(folder, _DEPTH)
        self._hand_over(folder, _DEPTH)

    def _count(self, folder: int, depth: int) -> None:
        for name in os.listdir(folder):
            status = _looked_at(name, folder)
            if stat.S_ISREG(status.st_mode):
                self._elsewhere[status.st_ino] = self._elsewhere.get(status.st_ino, status.st_nlink) - 1
            elif stat.S_ISDIR(status.st_mode) and depth:
                with _opened(name, folder, os.O_NOFOLLOW) as inner:
                    self._count(inner, depth - 1)

    def _hand_over(self, folder: int, depth: int) -> None:
        for name in os.listdir(folder):
            mode = _looked_at(name, folder).st_mode
            if stat.S_ISDIR(mode) and depth:
                with _opened(name, folder, os.O_NOFOLLOW) as inner:
                    self._hand_over(inner, depth - 1)
            elif not stat.S_ISREG(mode) or not self._file(folder, name):
                remove_at(folder, name)
        os.fchown(folder, self._uid, self._gid)
        os.fsync(folder)

    def _file(self, folder: int, name: str) -> bool:
        """Whether the file is the new owner's; False for one that was neither's, or has a name elsewhere too."""
        descriptor = os.open(name, _PLAIN, dir_fd=folder)
        try:
            status = os.fstat(descriptor)
            if status.st_uid not in (self._before, self._uid) or not stat.S_ISREG(status.st_mode):
                return False
            if self._elsewhere.get(status.st_ino) != 0:
                return False
            os.fchown(descriptor, self._uid, self._gid)
            os.fsync(descriptor)
            return True
        finally:
            os.close(descriptor)


def _looked_at(name: str, folder: int) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


@contextmanager
def _opened(path: Path | str, folder: int | None = None, flags: int = 0) -> Iterator[int]:
    """A directory's descriptor. Those of the state directory may be links to another disk, for only root makes them."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
