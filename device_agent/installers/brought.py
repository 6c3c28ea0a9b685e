"""Which Debian packages a part brought to the device: they were not there before, and leave with it.

One small file per part below `brought/` in the state directory, written at each commit. A package that was there
before a release named it is the owner's, and is never taken out.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from device_agent.adapters.files import make_dir, read_optional, remove, write_atomic
from device_agent.installers.port import PartId
from fleet_protocol.ids import check_id

_MOST: Final = 256 * 1024
Name = tuple[str, str]
"""A package's name and architecture."""


class Brought:
    """One part's list."""

    def __init__(self, state_dir: Path, part: PartId) -> None:
        name = check_id(part.part, "part") if part.part else "-"
        self._path = state_dir / "brought" / check_id(part.package, "package") / f"{name}.json"

    def read(self) -> frozenset[Name]:
        """The packages, none where nothing was ever brought."""
        data = read_optional(self._path, _MOST)
        return (
            frozenset() if data is None else frozenset((name, architecture) for name, architecture in json.loads(data))
        )

    def write(self, names: Iterable[Name]) -> None:
        """Durable before it returns."""
        wanted = sorted(set(names))
        if not wanted:
            remove(self._path)
        elif frozenset(wanted) != self.read():
            make_dir(self._path.parent)
            write_atomic(self._path, json.dumps(wanted).encode())
