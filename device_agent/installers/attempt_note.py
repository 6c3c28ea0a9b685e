"""Which parts an attempt touches, on the disk before the first of them changes anything: what a revert must undo.

What stands here of another attempt than the one that asks is over: it was committed, or given up, and the tidying after
it was lost. What its parts have kept is no way back from anything that comes later.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from device_agent.adapters.files import make_dir, read_optional, remove, write_atomic
from device_agent.installers.port import PartId
from fleet_protocol.ids import check_id

_MOST: Final = 64 * 1024


class AttemptNote:
    """`backup/<package>/parts.json`."""

    def __init__(self, state_dir: Path, package: str) -> None:
        self._package = package
        self._path = state_dir / "backup" / check_id(package, "package") / "parts.json"

    def write(self, attempt: str, parts: Iterable[PartId]) -> None:
        """Durable before it returns; parts of the same attempt that stand there already stay in it."""
        known = self.read()
        wanted = tuple(dict.fromkeys((*known, *parts)))
        if wanted != known or self._attempt() != attempt:
            note = {"attempt": attempt, "parts": [asdict(part) for part in wanted]}
            make_dir(self._path.parent)
            write_atomic(self._path, json.dumps(note).encode())

    def read(self) -> tuple[PartId, ...]:
        """The parts, none where no attempt is under way."""
        return tuple(PartId(**row) for row in self._load()["parts"])

    def is_of_another(self, attempt: str) -> bool:
        """Whether there is a note, which another attempt has left."""
        return self._attempt() not in (None, attempt)

    def _attempt(self) -> str | None:
        found: str | None = self._load()["attempt"]
        return found

    def _load(self) -> Mapping[str, Any]:
        data = read_optional(self._path, _MOST)
        value = [] if data is None else json.loads(data)
        return {"attempt": None, "parts": value} if isinstance(value, list) else value

    def drop(self) -> None:
        """The attempt has ended."""
        remove(self._path)
