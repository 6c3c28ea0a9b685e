"""The Debian packages that belong to a slot and did not come in its artifact: `slots/<package>/<slot>.debs/<part>/`.

`<sha256>.deb` is a package from the device's repositories, `dependencies.json` says which of them the release does not
name, and `back/` holds what the way back from this release needs, until it is committed.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from device_agent.adapters.files import fsync_dir, make_dir, read_optional, remove, remove_tree, write_atomic
from device_agent.installers.crash import crash_point
from fleet_protocol.errors import InstallError, ProtocolError

_BLOCK: Final = 1024 * 1024
_LIST_MOST: Final = 1024 * 1024
SCRATCH: Final = "apt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A package that the release needs and does not name."""

    name: str
    version: str
    architecture: str
    sha256: str


class SlotDebs:
    """One part's directory. Errors of the disk come as OSError."""

    def __init__(self, place: Path) -> None:
        self._place = place

    @property
    def back(self) -> Path:
        """What was installed before, as .debs."""
        return self._place / "back"

    @property
    def scratch(self) -> Path:
        """For apt's lists and downloads."""
        return self._place / SCRATCH

    def deb(self, sha256: str) -> Path:
        """Where a package from a repository is."""
        return self._place / f"{sha256}.deb"

    def dependencies(self) -> tuple[Dependency, ...]:
        """What was written down."""
        data = read_optional(self._place / "dependencies.json", _LIST_MOST)
        return () if data is None else tuple(Dependency(**row) for row in json.loads(data))

    def write_dependencies(self, found: Iterable[Dependency]) -> None:
        """Durable before it returns."""
        make_dir(self._place)
        write_atomic(self._place / "dependencies.json", json.dumps([asdict(one) for one in found]).encode())

    @property
    def may_be_lost(self) -> bool:
        """Whether the operator accepted that some package has no way back, or nothing was said of it."""
        found = read_optional(self._place / "strict", 16)
        return found is None

    def demand_way_back(self, *, demanded: bool) -> None:
        """Write down that the release may only be activated where there is a way back from it."""
        make_dir(self._place)
        if demanded:
            write_atomic(self._place / "strict", b"")
        else:
            remove(self._place / "strict")

    def take(self, source: Path, sha256: str) -> Path:
        """Copy a package in, unless it is there; ProtocolError `digest` where it is not the one that is signed."""
        place = self.deb(sha256)
        if place.is_file() and digest(place) == sha256:
            return place
        make_dir(self._place)
        copied = copy_durably(source, place.with_suffix(".new"))
        if copied != sha256:
            remove(place.with_suffix(".new"))
            raise ProtocolError("digest", f"{source.name} has digest {copied}, {sha256} is signed")
        place.with_suffix(".new").replace(place)
        fsync_dir(self._place)
        crash_point("package.after_take")
        return place

    def forget_way_back(self) -> None:
        """The release is committed: what it replaced is not needed any more."""
        if self._place.is_dir():
            remove(self._place / "strict")
            remove_tree(self.back)


def digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def copy_durably(source: Path, target: Path) -> str:
    """Copy a regular file, synced; returns the SHA-256 of what was written. InstallError `io` where it is none."""
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InstallError("io", f"{source.name}: {error.strerror}") from None
    found = hashlib.sha256()
    with suppress(FileNotFoundError):
        target.unlink()
    with os.fdopen(reading, "rb", buffering=0) as file, target.open("xb") as copy:
        while block := file.read(_BLOCK):
            found.update(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
    return found.hexdigest()
