"""A written tree survives a power cut."""

import os
import stat
from pathlib import Path
from typing import Final

from device_agent.installers.tree import walk

_FEW: Final = 64


def sync_tree(root: Path, entries: int) -> None:
    """Return only when everything below `root` is on the disk. Raises OSError.

    A few entries are synced one by one, which leaves other programs' data alone; for many, each of which would be
    a transaction of its own, the whole file system is synced at once.
    """
    if entries > _FEW and _syncfs(root):
        return
    for found in walk(root):
        directory = stat.S_ISDIR(found.status.st_mode)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_DIRECTORY if directory else 0)
        _fsync(os.open(found.name, flags, dir_fd=found.directory))
    for path in (root, root.parent):
        _fsync(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _syncfs(root: Path) -> bool:
    """Whether the C library could do it (syncfs(2)); it reports write errors since Linux 5.8."""
    import ctypes  # noqa: PLC0415 - only a large tree needs it

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        return False
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if library.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(root))
    finally:
        os.close(descriptor)
    return True
