"""Folders that another account writes, read and emptied by one that could be made to harm itself there.

1. A file counts only if it is regular, has one name, and belongs to whom the folder belongs: no link of either kind,
   no pipe that would block the reader, nothing that the account was handed by somebody else.
2. Everything is reached from one descriptor of the folder, and no step follows a link. The folder itself is found by
   its path, whose parents must be out of the other account's reach.
3. What was put there can be removed, whatever it is and however deep it lies.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

NOT_PLAIN: Final = frozenset({errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENXIO})
"""How the kernel, or rule 1, refuses what is no plain file."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_plain(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the file, by rule 1; one that `flags` create has mode 0600.

    Raises OSError, with one of `NOT_PLAIN` for what is no such file.
    """
    with _opened(path.parent) as folder:
        descriptor = os.open(path.name, flags | _FILE, 0o600, dir_fd=folder)
        if not _is_plain(os.fstat(descriptor), os.fstat(folder)):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a plain file of the folder's owner", str(path))
    return descriptor


def open_own(path: Path) -> int:
    """A descriptor for reading and writing of a file of one's own; what is there and is none makes room for it."""
    try:
        return open_plain(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if error.errno not in NOT_PLAIN:
            raise
    remove_entry(path)
    return open_plain(path, os.O_RDWR | os.O_CREAT)


def read_plain(path: Path, most: int) -> bytes:
    """The file's bytes. Raises OSError as `open_plain`, and for one over `most` bytes."""
    with os.fdopen(open_plain(path), "rb") as source:
        data = source.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EOVERFLOW, "file is larger than it can be", str(path))
    return data


def empty_folder(path: Path, *, but: Collection[str] = ()) -> None:
    """Nothing is left, durably, but plain files of the names in `but`. No folder is empty. Raises OSError."""
    if not path.is_dir():
        return
    with _opened(path) as folder:
        owner = os.fstat(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name not in but or not _is_plain(_looked_at(entry.name, folder), owner):
                    remove_at(folder, entry.name)
        os.fsync(folder)


def remove_entry(path: Path) -> None:
    """The entry is gone, durably, whatever it was. Raises OSError."""
    with _opened(path.parent) as folder:
        remove_at(folder, path.name)
        os.fsync(folder)


def remove_at(folder: int, name: str) -> None:
    """As `remove_entry`, from the folder's descriptor, and not synced.

    Any depth takes two descriptors: what lies in a directory is moved up before the directory is removed.
    """
    waiting = [] if _unlinked(folder, name) else [name]
    while waiting:
        waiting += _dissolved(folder, waiting.pop())


def _is_plain(status: os.stat_result, folder: os.stat_result) -> bool:
    """Rule 1."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == folder.st_uid


def _looked_at(name: str, folder: int) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _unlinked(folder: int, name: str) -> bool:
    """Whether it is gone; False for a directory."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


def _dissolved(folder: int, name: str) -> list[str]:
    """The names that the directory's own directories have in `folder` now that it is gone."""
    moved = []
    inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    try:
        with os.scandir(inner) as entries:
            for entry in entries:
                if not _unlinked(inner, entry.name):
                    moved.append(f".{os.urandom(12).hex()}")
                    os.rename(entry.name, moved[-1], src_dir_fd=inner, dst_dir_fd=folder)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=folder)
    return moved
