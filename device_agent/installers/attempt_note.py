"""Which parts an attempt touches, on the disk before the first of them changes anything: what a revert must undo."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from device_agent.adapters.files import make_dir, read_optional, remove, write_atomic
from device_agent.installers.port import PartId
from fleet_protocol.ids import check_id

_MOST: Final = 64 * 1024


class AttemptNote:
    """`backup/<package>/parts.json`."""

    def __init__(self, state_dir: Path, package: str) -> None:
        self._package = package
        self._path = state_dir / "backup" / check_id(package, "package") / "parts.json"

    def write(self, parts: Iterable[PartId]) -> None:
        """Durable before it returns; parts of an unfinished attempt before stay in it."""
        known = self.read()
        wanted = tuple(dict.fromkeys((*known, *parts)))
        if wanted != known:
            make_dir(self._path.parent)
            write_atomic(self._path, json.dumps([asdict(part) for part in wanted]).encode())

    def read(self) -> tuple[PartId, ...]:
        """The parts, none where no attempt is under way."""
        data = read_optional(self._path, _MOST)
        return () if data is None else tuple(PartId(**row) for row in json.loads(data))

    def drop(self) -> None:
        """The attempt has ended."""
        remove(self._path)
