"""A log file that never grows beyond its bound: `agent.log`, and `agent.log.1` and so on for what came before."""

import os
from pathlib import Path
from typing import TextIO


class LogFile:
    """A stream for `device_agent.log.Log`. One process writes; whoever reads may follow by name (`tail -F`)."""

    def __init__(self, path: Path, *, size_bytes: int, files: int) -> None:
        """At most `files` files of about `size_bytes` each, the newest without a number. Raises OSError."""
        self._path, self._most, self._files = path, size_bytes, files
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._stream = self._open()

    def write(self, text: str) -> int:
        """Append a line, in the next file where this one is full."""
        if self._stream.tell() + len(text) > self._most and self._stream.tell():
            self._rotate()
        return self._stream.write(text)

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._stream.flush()

    def close(self) -> None:
        """Write no more."""
        self._stream.close()

    def _rotate(self) -> None:
        self._stream.close()
        for number in range(self._files - 1, 0, -1):
            source = self._name(number - 1)
            if source.exists():
                source.replace(self._name(number))
        if self._files == 1:
            self._path.unlink()
        self._stream = self._open()

    def _name(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _open(self) -> TextIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        stream = os.fdopen(os.open(self._path, flags, 0o640), "a", encoding="utf-8")
        stream.seek(0, os.SEEK_END)
        return stream
