"""Writes a tree below one directory, relative to open descriptors, so that nothing outside can be reached.

1. Every name is checked before it is used, and every step down is opened without following links.
2. A file is created anew, or continued in a tree that an interrupted attempt at the same artifacts left: what is
   there already and equal is not written again.
3. What is written stands in the records by the bytes that were handed over, not by what the disk gives back.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from device_agent.installers.crash import crash_point
from device_agent.installers.hashing import HashLane, sha256
from device_agent.installers.tree import TreeRecords
from fleet_protocol.archive import MemberNames
from fleet_protocol.errors import InstallError

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LARGE: Final = 64 * 1024
"""Below this a hand-over to another thread costs more than the hash."""
_FLUSH: Final = 8 * 1024 * 1024
_UNSETTLED: Final = 256


class TreeWriter:
    """One tree, written member by member. Close it: it holds descriptors of the directories it is in."""

    def __init__(self, root: int, lane: HashLane) -> None:
        """`root` is a descriptor of the directory to fill; it stays the caller's."""
        self._names = MemberNames()
        self._open: list[tuple[str, int]] = []
        self._root, self._lane = root, lane
        self._records = TreeRecords()
        self._hashing: list[tuple[str, int, int, Any]] = []
        """Path, mode, size and digest of files that the lane may not have hashed to their end."""
        self.bytes_kept = 0
        """Content that was there already and was not written again."""

    def __len__(self) -> int:
        """Files and directories so far."""
        return len(self._names)

    @property
    def records(self) -> TreeRecords:
        """What has been written so far (rule 3)."""
        self._settle()
        return self._records

    def close(self) -> None:
        """Let go of all descriptors."""
        while self._open:
            os.close(self._open.pop()[1])

    def directory(self, path: str) -> None:
        """The directory is there, mode 0755. Raises ProtocolError `archive` for a name that may not be."""
        self._names.add(path, directory=True)
        parent, name = self._parent(path)
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
        descriptor = self._step(parent, name)
        self._open.append((name, descriptor))
        os.fchmod(descriptor, 0o755)
        self._records.add(path, directory=True, mode=0o755, size=0, digest="-")
        crash_point("stage.after_entry")

    def file(self, path: str, mode: int, size: int, pieces: Iterable[memoryview], digest: str | None = None) -> None:
        """The file holds exactly `pieces`, `size` bytes in all; `digest` where the caller computes it anyway."""
        self._names.add(path, directory=False)
        parent, name = self._parent(path)
        descriptor, fresh = _open_file(parent, name)
        try:
            found = self._fill(descriptor, size, pieces, fresh=fresh, hashed=digest is None)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
        if digest is not None:
            self._records.add(path, directory=False, mode=mode, size=size, digest=digest)
        else:
            self._hashing.append((path, mode, size, found))
            if len(self._hashing) >= _UNSETTLED:
                self._settle()
        crash_point("stage.after_entry")

    def _settle(self) -> None:
        """The digests of all files are known. Not after each file: the lane would stand still between any two."""
        self._lane.drain()
        for path, mode, size, digest in self._hashing:
            self._records.add(path, directory=False, mode=mode, size=size, digest=digest.hexdigest())
        self._hashing.clear()

    def _fill(self, descriptor: int, size: int, pieces: Iterable[memoryview], *, fresh: bool, hashed: bool) -> Any:
        digest, offset, beside = sha256(), 0, size >= _LARGE
        for piece in pieces:
            if hashed and beside:
                self._lane.update(digest, piece)
            elif hashed:
                digest.update(piece)
            fresh = fresh or not self._holds(descriptor, piece, offset)
            if fresh:
                _write_at(descriptor, piece, offset)
                crash_point("stage.after_block")
            offset += len(piece)
            if offset % _FLUSH < len(piece):
                # Starts the write-back now, beside the hashing; otherwise all of it waits for the final sync. The part
                # before is told of again, for it can be dropped now; not all of the file, which would be quadratic.
                start = max(0, offset - 2 * _FLUSH)
                os.posix_fadvise(descriptor, start, offset - start, os.POSIX_FADV_DONTNEED)
        if not fresh:
            os.ftruncate(descriptor, size)
        return digest

    def _holds(self, descriptor: int, piece: memoryview, offset: int) -> bool:
        if os.pread(descriptor, len(piece), offset) != piece:
            os.ftruncate(descriptor, offset)
            return False
        self.bytes_kept += len(piece)
        return True

    def _parent(self, path: str) -> tuple[int, str]:
        """A descriptor of the directory that holds `path`, and the last part of `path`."""
        *parts, name = path.split("/")
        common = 0
        while common < min(len(parts), len(self._open)) and self._open[common][0] == parts[common]:
            common += 1
        while len(self._open) > common:
            os.close(self._open.pop()[1])
        for part in parts[common:]:
            self._open.append((part, self._step(self._open[-1][1] if self._open else self._root, part)))
        return (self._open[-1][1] if self._open else self._root), name

    def _step(self, parent: int, name: str) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except NotADirectoryError:
            raise InstallError("altered", f"{name!a} in the spare slot is not a directory") from None


def _open_file(parent: int, name: str) -> tuple[int, bool]:
    """The file's descriptor, and whether it is a new one."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent), True
    except FileExistsError:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        raise InstallError("altered", f"{name!a} in the spare slot is a directory")
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return os.open(name, flags, dir_fd=parent), False
    os.unlink(name, dir_fd=parent)
    return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent), True


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        size = os.pwrite(descriptor, data, offset)
        data, offset = data[size:], offset + size
