"""A service's output on disk: bounded, and readable from its end."""

import os
from collections import deque
from pathlib import Path
from typing import Final

from device_agent.adapters.files import write_atomic

SIZE_MOST: Final = 1024 * 1024
"""Bytes in each of the two files, at the moment of a rotation."""
READ_MOST: Final = 96 * 1024
LINE_MOST: Final = 2_048


def open_log(path: Path) -> int:
    """A descriptor that appends; what the service writes after a rotation starts the file anew."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def bound(path: Path) -> int:
    """Keep the newest SIZE_MOST bytes as `log.1` and empty the log, once it is larger; returns the log's size.

    The service holds the file open, so it is emptied in place: lines written during the copy may be lost.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= SIZE_MOST:
        return size
    write_atomic(path.with_name(path.name + ".1"), tail(path, SIZE_MOST), durable=False)
    os.truncate(path, 0)
    return 0


def last_lines(path: Path, lines: int) -> tuple[str, ...]:
    """The newest lines, oldest first: at most `lines`, READ_MOST bytes in all, LINE_MOST characters each."""
    newest = tail(path, READ_MOST)
    if len(newest) < READ_MOST:
        newest = tail(path.with_name(path.name + ".1"), READ_MOST - len(newest)) + newest
    found = deque(newest.decode("utf-8", errors="replace").splitlines(), maxlen=max(0, lines))
    return tuple(line[:LINE_MOST] for line in found)


def tail(path: Path, most: int) -> bytes:
    """The last `most` bytes, or fewer; nothing where there is no file."""
    try:
        with path.open("rb") as source:
            end = source.seek(0, os.SEEK_END)
            source.seek(max(0, end - most))
            return source.read(most)
    except FileNotFoundError:
        return b""
