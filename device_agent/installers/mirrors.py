"""Which source to try first: the manifest's order, but those that failed here later."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from device_agent.adapters.files import write_atomic
from device_agent.adapters.foreign_folder import read_plain
from device_agent.installers.addresses import Url

_MOST: Final = 64
_SIZE_MOST: Final = 64 * 1024


class Mirrors:
    """Remembers failures by origin in one small file; without the file there are none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failures = _read(path)

    def order(self, urls: Sequence[Url]) -> list[Url]:
        """The sources in the order to try them."""
        return sorted(urls, key=lambda url: self._failures.get(url.origin, 0))

    def failed(self, url: Url) -> None:
        """Try this source later from now on."""
        count = self._failures.pop(url.origin, 0)
        self._failures[url.origin] = count + 1
        self._write()

    def worked(self, url: Url) -> None:
        """Its failures are forgiven."""
        if self._failures.pop(url.origin, 0):
            self._write()

    def _write(self) -> None:
        newest = dict(list(self._failures.items())[-_MOST:])
        write_atomic(self._path, json.dumps(newest).encode(), durable=False)


def _read(path: Path) -> dict[str, int]:
    try:
        value = json.loads(read_plain(path, _SIZE_MOST))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {origin: count for origin, count in value.items() if type(count) is int}
