"""How many error lines the services write, read from where the last look ended."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_READ_MOST: Final = 256 * 1024
ERROR: Final = r"\b(?:ERROR|CRITICAL|FATAL|PANIC)\b|^Traceback \(most recent call last\)"
"""What a line of an error looks like, wherever it is written."""
_ERROR: Final = re.compile(ERROR.encode(), re.MULTILINE)


@dataclass(slots=True)
class _Seen:
    """Where the last look at one log ended."""

    size: int
    at_s: float


class LogErrors:
    """Counts per minute, by service."""

    def __init__(self, *, mono_s: Callable[[], float] = time.monotonic) -> None:
        self._mono_s = mono_s
        self._seen: dict[str, _Seen] = {}

    def per_minute(self, logs: Mapping[str, Path]) -> dict[str, float]:
        """Error lines a minute since the last call; a service seen for the first time is left out."""
        rates: dict[str, float] = {}
        for service, path in logs.items():
            now_s, size = self._mono_s(), _size(path)
            before = self._seen.get(service)
            self._seen[service] = _Seen(size, now_s)
            if before is not None and now_s > before.at_s:
                start = before.size if size >= before.size else 0
                rates[service] = _errors(path, max(start, size - _READ_MOST), size) * 60.0 / (now_s - before.at_s)
        self._seen = {service: seen for service, seen in self._seen.items() if service in logs}
        return rates


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _errors(path: Path, start: int, end: int) -> int:
    if end <= start:
        return 0
    try:
        with path.open("rb") as source:
            source.seek(start)
            return len(_ERROR.findall(source.read(end - start)))
    except OSError:
        return 0
