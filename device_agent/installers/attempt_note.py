"""Which kinds an attempt is of, on the disk before the first of them changes anything: what a revert must undo."""

import json
from pathlib import Path
from typing import Final

from device_agent.adapters.files import make_dir, read_optional, remove, write_atomic
from fleet_protocol.ids import check_id

_MOST: Final = 4_096


class AttemptNote:
    """`backup/<package>/kinds.json`."""

    def __init__(self, state_dir: Path, package: str) -> None:
        self._path = state_dir / "backup" / check_id(package, "package") / "kinds.json"

    def write(self, kinds: tuple[str, ...]) -> None:
        """Durable before it returns; kinds of an unfinished attempt before stay in it."""
        known = self.read()
        wanted = tuple(dict.fromkeys((*known, *kinds)))
        if wanted != known:
            make_dir(self._path.parent)
            write_atomic(self._path, json.dumps(wanted).encode())

    def read(self) -> tuple[str, ...]:
        """The kinds, none where no attempt is under way."""
        data = read_optional(self._path, _MOST)
        return () if data is None else tuple(str(kind) for kind in json.loads(data))

    def drop(self) -> None:
        """The attempt has ended."""
        remove(self._path)
