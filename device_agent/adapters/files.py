"""File operations that survive a power cut.

1. A file is replaced by write, fsync, rename, fsync of the directory: a cut leaves the old or the new bytes.
2. A symbolic link is replaced by rename, never removed first.
3. Everything here may run twice; what is gone already is no error. Whoever was killed may have come as far as the
   change and not to its fsync: the next call makes that certain before it returns.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from device_agent.adapters.foreign_folder import NOT_PLAIN, remove_entry
from fleet_protocol.errors import InstallError

_TEMPORARY: Final = ".new"
_PAGE: Final = 64 * 1024
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_CHANGED: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EROFS, errno.EINVAL})
"""A directory is gone, another user's, or of a file system that is never written, which may not know fsync."""


def storage_error(error: OSError, what: str) -> InstallError:
    """The InstallError that an OSError means: `no-space`, `read-only` or `io`."""
    if error.errno in _FULL:
        return InstallError("no-space", f"{what}: {error.strerror}")
    if error.errno == errno.EROFS:
        return InstallError("read-only", f"{what}: {error.strerror}")
    return InstallError("io", f"{what}: {error.strerror or error}")


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Turn an OSError of the block into an InstallError that names `what` was being done."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, what) from error


def fsync_file(path: Path) -> None:
    """Return only when the file's bytes would survive a power cut. Raises OSError for what is no plain file."""
    _fsync(path, os.O_NOFOLLOW | os.O_NONBLOCK)


def fsync_dir(path: Path) -> None:
    """Return only when the directory's entries would survive a power cut."""
    _fsync(path, os.O_DIRECTORY)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_changed(path: Path) -> None:
    """Rule 3, for a directory in which there is nothing to change any more."""
    try:
        fsync_dir(path)
    except OSError as error:
        if error.errno not in _NOT_CHANGED:
            raise


def write_atomic(
    path: Path, data: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None, durable: bool = True
) -> None:
    """Replace `path` by `data`: whoever reads, at any time and after a power cut, sees all old or all new bytes.

    One writer at a time per path. `owner` is uid and gid, where they shall not be this process's own. Without
    `durable` a power cut may bring the old bytes back. Raises OSError.
    """
    temporary = path.with_name(path.name + _TEMPORARY)
    descriptor = _open_temporary(temporary, mode)
    try:
        if owner is not None and owner != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        _write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    temporary.replace(path)
    if durable:
        fsync_dir(path.parent)


def _open_temporary(path: Path, mode: int) -> int:
    """What is there and is no file, or a pipe that nobody reads, makes room for one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, flags, mode)
    except OSError as error:
        if error.errno not in NOT_PLAIN:
            raise
    remove_entry(path)
    return os.open(path, flags, mode)


def read_optional(path: Path, most: int) -> bytes | None:
    """The file's bytes, or None where there is none. Raises OSError EOVERFLOW for one over `most` bytes.

    What is no regular file is OSError EINVAL: a pipe or a device could keep the reader for ever. No more is asked for
    at once than the file seems to have: /proc refuses a read that is too large for the kernel.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with os.fdopen(descriptor, "rb") as source:
        data = source.read(min(max(status.st_size, _PAGE), most) + 1)
        while len(data) <= most and (more := source.read(min(_PAGE, most + 1 - len(data)))):
            data += more
    if len(data) > most:
        raise OSError(errno.EOVERFLOW, "file is larger than it can be", str(path))
    return data


def make_dir(path: Path, mode: int = 0o700) -> None:
    """The directory and its parents exist, durably."""
    if path.is_dir():
        fsync_changed(path.parent)
        return
    make_dir(path.parent, mode)
    with suppress(FileExistsError):
        path.mkdir(mode)
    fsync_dir(path.parent)


def swap_symlink(link: Path, target: str) -> None:
    """Point `link` at `target` in one atomic step, durably. Anything that is not a link there raises OSError."""
    if read_link(link) == target:
        fsync_dir(link.parent)
        return
    temporary = link.with_name(link.name + _TEMPORARY)
    with suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(link)
    fsync_dir(link.parent)


def read_link(link: Path) -> str | None:
    """What a symbolic link says, or None where there is none. Raises OSError where something else is there."""
    try:
        return os.readlink(link)  # noqa: PTH115  the text itself is wanted, not a Path that normalises it
    except FileNotFoundError:
        return None


def remove(path: Path) -> None:
    """The file or link is gone, durably."""
    try:
        path.unlink()
    except FileNotFoundError:
        fsync_changed(path.parent)
    else:
        fsync_dir(path.parent)


def remove_tree(path: Path) -> None:
    """The directory tree is gone, durably; links in it are removed, never followed. A file at `path` goes too."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        fsync_changed(path.parent)
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()
    fsync_dir(path.parent)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
