"""The resident's log: one line per event to the journal, a file or standard error, and never a flood.

A line is `time LEVEL code: text`. A code may stand on a few lines in each minute; what comes beyond is counted, and the
count is written once the minute is over. No logging library: one costs more memory than the rest of the loop.
"""

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from fleet_protocol.ids import shown

BURST: Final = 5
WINDOW_S: Final = 60.0
_LINE: Final = 400
Level = Literal["info", "warning", "error"]
LEVELS: Final[tuple[Level, ...]] = ("info", "warning", "error")
_LEVEL_OF: Final[Mapping[str, Level]] = {"INFO": "info", "WARNING": "warning", "ERROR": "error"}
_PRIORITIES: Final[Mapping[str, int]] = {"INFO": 6, "WARNING": 4, "ERROR": 3}
"""As sd-daemon(3) has the journal read them from the front of a line."""


class Stream(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...


def of_a_file(error: OSError) -> str:
    """What went wrong, with which file, and what to do where that is clear: one line for the command line."""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}{'; free some space' if error.errno == errno.ENOSPC else ''}"


@dataclass(slots=True)
class _Window:
    """The lines of one code in one minute."""

    began_s: float
    lines: int = 0
    dropped: int = 0


class Log:
    """Safe to use from any thread. Texts of peers must be passed through `fleet_protocol.ids.shown` or be ASCII."""

    def __init__(
        self,
        stream: Stream | None = None,
        *,
        level: Level = "info",
        mono_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._stream: Stream = sys.stderr if stream is None else stream
        self._journal = stream is None and _goes_to_the_journal()
        self._least = LEVELS.index(level)
        self._mono_s, self._wall_s = mono_s, wall_s
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()

    def info(self, code: str, text: str) -> None:
        """Something that happens in the course of things."""
        self._write("INFO", code, text)

    def warning(self, code: str, text: str) -> None:
        """Something that the owner may want to look at."""
        self._write("WARNING", code, text)

    def error(self, code: str, text: str) -> None:
        """Something that keeps this device from updating."""
        self._write("ERROR", code, text)

    def flush(self) -> None:
        """Write the counts of bursts that are over; called now and then by whoever is awake anyway."""
        with self._lock:
            for code, window in list(self._windows.items()):
                if self._mono_s() - window.began_s >= WINDOW_S:
                    self._close(code, window)

    def _write(self, level: str, code: str, text: str) -> None:
        if LEVELS.index(_LEVEL_OF[level]) < self._least:
            return
        with self._lock:
            window = self._windows.get(code)
            if window is not None and self._mono_s() - window.began_s >= WINDOW_S:
                self._close(code, window)
                window = None
            if window is None:
                window = self._windows[code] = _Window(self._mono_s())
            if window.lines >= BURST:
                window.dropped += 1
                return
            window.lines += 1
            self._line(level, code, text)

    def _close(self, code: str, window: _Window) -> None:
        del self._windows[code]
        if window.dropped:
            self._line("WARNING", code, f"{window.dropped} more in a minute")

    def _line(self, level: str, code: str, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime(self._wall_s()))
        front = f"<{_PRIORITIES[level]}>" if self._journal else stamp
        one_line = text if text.isprintable() else shown(text)
        if len(one_line) > _LINE:
            one_line = one_line[: _LINE - 3] + "..."
        try:
            self._stream.write(f"{front}{level} {code}: {one_line}\n")
            self._stream.flush()
        except (OSError, ValueError):
            return  # nobody reads any more; the agent's work does not depend on its log


def _goes_to_the_journal() -> bool:
    """Whether standard error is the journal's, which has its own clock (systemd.exec(5), $JOURNAL_STREAM)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))
