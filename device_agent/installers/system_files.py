"""Files of the system outside the agent's own state, replaced so that a power cut leaves the old or the new one."""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from device_agent.adapters.files import (
    fsync_changed,
    fsync_dir,
    read_optional,
    remove,
    swap_symlink,
    write_atomic,
)
from fleet_protocol.errors import InstallError

_READ_MOST = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemFile:
    """A file or a symbolic link (`target` is then its text) as it stands somewhere in the system."""

    data: bytes = b""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    target: str | None = None


class SystemFiles:
    """Paths are absolute, as the system names them. Errors of the disk come as OSError."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def place(self, path: str) -> Path:
        """Where the path is for this process."""
        parts = path.split("/")
        if not path.startswith("/") or any(part in ("", ".", "..") for part in parts[1:]):
            raise InstallError("io", f"{path!a} is not an absolute path")
        return self._root.joinpath(*parts[1:])

    def read(self, path: str) -> bytes | None:
        """The content, following links, or None where there is no such file."""
        return read_optional(self.place(path), _READ_MOST)

    def look(self, path: str) -> SystemFile | None:
        """What stands at the path itself, or None. Raises InstallError `occupied` for a directory or a device."""
        place = self.place(path)
        try:
            status = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(status.st_mode):
            return SystemFile(target=os.readlink(place))  # noqa: PTH115 - the text itself is wanted
        if not stat.S_ISREG(status.st_mode):
            raise InstallError("occupied", f"{path} is neither a file nor a link")
        data = read_optional(place, _READ_MOST)
        mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
        return None if data is None else SystemFile(data=data, mode=mode, owner=owner)

    def write(self, path: str, data: bytes, *, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
        """The file holds exactly `data`, atomically and durably; a link there is replaced, not followed."""
        place = self.place(path)
        self.make_dir(path.rpartition("/")[0])
        write_atomic(place, data, mode=mode, owner=owner)

    def link(self, path: str, target: str) -> None:
        """A symbolic link with this text stands at the path; whatever file was there is replaced."""
        place = self.place(path)
        self.make_dir(path.rpartition("/")[0])
        if not place.is_symlink():
            remove(place)
        swap_symlink(place, target)

    def remove(self, path: str) -> None:
        """Nothing stands at the path."""
        with suppress(NotADirectoryError):
            remove(self.place(path))

    def make_dir(self, path: str) -> None:
        """The directory and its parents exist, mode 0755, durably."""
        if path in ("", "/"):
            return
        place = self.place(path)
        if place.is_dir():
            fsync_changed(place.parent)
            return
        self.make_dir(path.rpartition("/")[0])
        with suppress(FileExistsError):
            place.mkdir()
            place.chmod(0o755)  # whatever the worker's umask is: the system's own programs read here
        fsync_dir(place.parent)

    def remove_dir(self, path: str) -> None:
        """An empty directory at the path is gone; anything else stays."""
        place = self.place(path)
        with suppress(OSError):
            place.rmdir()
            fsync_dir(place.parent)
