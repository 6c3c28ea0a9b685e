"""Where the files of a unit are, and who may touch them.

1. What lies in a user's home is looked at and changed with that user's rights alone: whatever the user puts there,
   links included, root does nothing for them that they could not do (attack B7).
2. Of a unit only its file, our own drop-in and the links that enable it are ever changed; drop-ins of others stay.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from device_agent.installers.system_files import SystemFile, SystemFiles
from device_agent.installers.unit_text import DROP_IN
from device_agent.systemd.systemctl import Account

SYSTEM: Final = "/etc/systemd/system"
_LINK_DIRS: Final = (".wants", ".requires", ".upholds")


@contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """The block has the account's rights on files and no others. All threads of the process have."""
    if account.uid == os.geteuid():
        yield
        return
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(account.gid)
    os.seteuid(account.uid)
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)
        os.setgroups(groups)


class OwnedFiles(SystemFiles):
    """Rule 1. What is written into a home belongs to whose home it is."""

    def __init__(self, root: Path, accounts: tuple[Account, ...]) -> None:
        super().__init__(root)
        self._accounts = accounts

    def look(self, path: str) -> SystemFile | None:
        """See SystemFiles."""
        with self._rights(path):
            return super().look(path)

    def read(self, path: str) -> bytes | None:
        """See SystemFiles."""
        with self._rights(path):
            return super().read(path)

    def write(self, path: str, data: bytes, *, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
        """See SystemFiles."""
        with self._rights(path) as is_home:
            super().write(path, data, mode=mode, owner=None if is_home else owner)

    def link(self, path: str, target: str) -> None:
        """See SystemFiles."""
        with self._rights(path):
            super().link(path, target)

    def remove(self, path: str) -> None:
        """See SystemFiles."""
        with self._rights(path):
            super().remove(path)

    def remove_dir(self, path: str) -> None:
        """See SystemFiles."""
        with self._rights(path):
            super().remove_dir(path)

    def links(self, directory: str) -> list[tuple[str, str]]:
        """Every symbolic link in the directory and in those that systemd looks for links in, with its text."""
        with self._rights(directory):
            return list(self._links(directory, deeper=True))

    def _links(self, directory: str, *, deeper: bool) -> Iterator[tuple[str, str]]:
        place = self.place(directory)
        for entry in sorted(place.iterdir()) if place.is_dir() else []:
            path = f"{directory}/{entry.name}"
            if entry.is_symlink():
                yield path, os.readlink(entry)  # noqa: PTH115 - the text itself is wanted
            elif deeper and entry.name.endswith(_LINK_DIRS):
                yield from self._links(path, deeper=False)

    @contextmanager
    def _rights(self, path: str) -> Iterator[bool]:
        for account in self._accounts:
            if path.startswith(f"{account.home}/"):
                with acting_as(account):
                    yield True
                return
        yield False


class UnitFiles:
    """The files of one unit. Paths are the system's own."""

    def __init__(self, files: OwnedFiles, unit: str, account: Account | None) -> None:
        self._files, self._unit = files, unit
        self.directory = SYSTEM if account is None else f"{account.home}/.config/systemd/user"
        self.file = f"{self.directory}/{unit}"
        self._drop_ins = f"{self.file}.d"
        self.drop_in = f"{self._drop_ins}/{DROP_IN}"

    def links(self) -> tuple[str, ...]:
        """The links that make others want the unit or call it by another name, as they stand."""
        found = self._files.links(self.directory)
        return tuple(
            path
            for path, target in found
            if path != self.file and self._unit in (path.rpartition("/")[2], target.rpartition("/")[2])
        )

    def link(self, name: str) -> str:
        """The path of a link by its name in the unit's [Install] section."""
        return f"{self.directory}/{name}"

    def remove_links(self) -> None:
        """Nothing wants the unit any more."""
        for path in self.links():
            self._files.remove(path)

    def remove(self) -> None:
        """The file and our drop-in are gone."""
        self._files.remove(self.file)
        self.remove_drop_in()

    def remove_drop_in(self) -> None:
        """Our drop-in is gone, and its directory where it held nothing else."""
        self._files.remove(self.drop_in)
        self.tidy()

    def tidy(self) -> None:
        """An empty directory for drop-ins is gone."""
        self._files.remove_dir(self._drop_ins)
