"""Retained messages that outlive the embedded broker."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fleet_protocol.errors import PolicyError

_TABLE = "CREATE TABLE IF NOT EXISTS retained (topic TEXT PRIMARY KEY, qos INTEGER NOT NULL, payload BLOB NOT NULL)"


class RetainedFile:
    """The newest retained payload of every topic, in one SQLite file.

    A kill of the process loses nothing; a power cut may lose the last moments but tears nothing
    (write-ahead log, `synchronous=NORMAL`).
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file; raises PolicyError `setup` where that can not be."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._rows = sqlite3.connect(path, isolation_level=None)
            self._rows.execute("PRAGMA journal_mode=WAL")
            self._rows.execute("PRAGMA synchronous=NORMAL")
            self._rows.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise PolicyError("setup", f"cannot keep retained messages in {path}: {reason}") from None

    def put(self, topic: str, qos: int, payload: bytes) -> None:
        """Remember a payload; an empty one forgets the topic."""
        if payload:
            self._rows.execute("INSERT OR REPLACE INTO retained VALUES (?, ?, ?)", (topic, qos, payload))
        else:
            self._rows.execute("DELETE FROM retained WHERE topic = ?", (topic,))

    def all(self) -> Iterator[tuple[str, int, bytes]]:
        """Every topic with its QoS and payload."""
        yield from self._rows.execute("SELECT topic, qos, payload FROM retained ORDER BY topic")

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
