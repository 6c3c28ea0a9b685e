"""What a slot holds, as one SHA-256.

The digest covers one record for each file and directory below the root, each directory before its content, names in
the byte order of UTF-8: path, kind, mode, size and the content's SHA-256. Owners and times are not part of it.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.installers.hashing import sha256
from fleet_protocol.archive import DEPTH, check_member_name
from fleet_protocol.errors import InstallError, ProtocolError

_VERSION: Final = b"fairlead-tree 1\n"
_BLOCK: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """One entry below a root. `directory` is a descriptor that is open only while this is looked at."""

    path: str
    name: str
    directory: int
    status: os.stat_result


class TreeRecords:
    """Collects the records of a tree in any order, while it is written."""

    def __init__(self) -> None:
        self._records: list[bytes] = []

    def add(self, path: str, *, directory: bool, mode: int, size: int, digest: str) -> None:
        """One entry; `digest` is the content's SHA-256, `-` for a directory."""
        self._records.append(_record(path, directory=directory, mode=mode, size=size, digest=digest))

    def digest(self) -> str:
        """The tree's digest."""
        total = sha256()
        total.update(_VERSION)
        for record in sorted(self._records, key=_order):
            total.update(record)
        found: str = total.hexdigest()
        return found


def tree_digest(root: Path) -> str:
    """The digest of what the disk holds below `root`, with memory that does not grow with it.

    Raises InstallError `altered` for what no installer writes: a link, a device, a second name of a file, an
    odd name; `io` where something can not be read. Clean pages are dropped first, so that the medium is read.
    """
    total = sha256()
    total.update(_VERSION)
    for found in walk(root):
        mode = found.status.st_mode
        if stat.S_ISDIR(mode):
            digest, size = "-", 0
        else:
            digest, size = _file_digest(found), found.status.st_size
        bits = stat.S_IMODE(mode)
        total.update(_record(found.path, directory=stat.S_ISDIR(mode), mode=bits, size=size, digest=digest))
    result: str = total.hexdigest()
    return result


def walk(root: Path) -> Iterator[Found]:
    """Every file and directory below `root` in the digest's order; no link is followed. Raises as `tree_digest`."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InstallError("altered", f"{root.name}: {error.strerror}") from None
    try:
        yield from _walk(descriptor, "", 1)
    finally:
        os.close(descriptor)


def _walk(directory: int, prefix: str, depth: int) -> Iterator[Found]:
    for name in sorted(os.listdir(directory), key=os.fsencode):
        path = prefix + name
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        _check(path, status, depth)
        yield Found(path, name, directory, status)
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                yield from _walk(inner, path + "/", depth + 1)
            finally:
                os.close(inner)


def _check(path: str, status: os.stat_result, depth: int) -> None:
    regular = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    if depth > DEPTH or not (regular or stat.S_ISDIR(status.st_mode)):
        raise InstallError("altered", f"{path!a} is not a plain file or directory")
    try:
        check_member_name(path)
    except (ProtocolError, UnicodeEncodeError):
        raise InstallError("altered", f"{path!a} is not a name that was installed") from None


def _file_digest(found: Found) -> str:
    descriptor = os.open(found.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.directory)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        digest = sha256()
        buffer = bytearray(min(_BLOCK, found.status.st_size) or 1)
        view = memoryview(buffer)
        while size := os.readv(descriptor, [buffer]):
            digest.update(view[:size])
        text: str = digest.hexdigest()
        return text
    finally:
        os.close(descriptor)


def _record(path: str, *, directory: bool, mode: int, size: int, digest: str) -> bytes:
    kind = "d" if directory else "f"
    return f"{path}\n{kind} {mode:04o} {size} {digest}\n".replace("/", "\0").encode("utf-8")


def _order(record: bytes) -> bytes:
    """Parts are parted by NUL, which sorts before everything: a directory's content follows it at once."""
    return record.partition(b"\n")[0]
