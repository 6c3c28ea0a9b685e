"""Files of the system outside the agent's own state, replaced so that a power cut leaves the old or the new one."""

from contextlib import suppress
from pathlib import Path

from device_agent.adapters.files import fsync_dir, read_optional, remove, swap_symlink, write_atomic
from fleet_protocol.errors import InstallError

_READ_MOST = 256 * 1024 * 1024


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
            return
        self.make_dir(path.rpartition("/")[0])
        with suppress(FileExistsError):
            place.mkdir()
            place.chmod(0o755)  # whatever the worker's umask is: the system's own programs read here
        fsync_dir(place.parent)
