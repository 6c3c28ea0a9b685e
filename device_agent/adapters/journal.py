"""The journal: the machine's record on disk, in TinyDB, through a storage that a power cut cannot tear.

1. The file is replaced whole, never written in place: a cut during `save` leaves the old record or the new one.
2. Beside the record stands its SHA-256. A record that does not match, or is of another form, is not read.
3. A marker is laid down after the first record is durable. From then on a missing record is a lost one: the device
   must not take itself for new, because it would forget what it obeyed and what failed on it (attack A9).
4. Room for the next record is held by a file that is let go when the disk is full, and held again as soon as it can be.
   Nothing goes on before the record is written: without that room an agent whose disk others fill would never come to
   give back what it holds itself. The file says nothing, so that a cut may leave it or not.
"""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tinydb import TinyDB
from tinydb.storages import Storage
from tinydb.table import Document

from device_agent.adapters.files import make_dir, read_optional, remove, storing, write_atomic
from device_agent.core.machine import initial
from device_agent.core.memory import from_memory, to_memory
from device_agent.core.record import Record
from fleet_protocol import strict_json
from fleet_protocol.errors import FleetError, InstallError, ProtocolError

FORMAT: Final = 1
SIZE: Final = 16 * 1024 * 1024
"""Bytes that a journal may have; every part of the record is bounded far below."""
_RECORD_ID: Final = 1
_ROOM: Final = 64 * 1024
_PAGE: Final = 4_096


class DurableStorage(Storage):
    """TinyDB's tables in one file that is replaced atomically and durably.

    The one writer is this object, so that what it wrote is not read from the disk again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tables: dict[str, dict[str, Any]] | None = None

    def read(self) -> dict[str, dict[str, Any]] | None:
        """The tables, None where there is no file. Raises ProtocolError for bytes that are not strict JSON."""
        if self._tables is None:
            data = read_optional(self._path, SIZE)
            tables = None if data is None else strict_json.loads(data, max_size=SIZE)
            if tables is not None and not _is_tables(tables):
                raise ProtocolError("schema", "not the tables of a journal")
            self._tables = tables
        return None if self._tables is None else _copied(self._tables)

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        """Return once the tables would survive a power cut. After an OSError the disk has the old or the new ones."""
        write_atomic(self._path, strict_json.dumps(data))
        self._tables = data


class TinyJournal:
    """The Journal of a device, in `<state_dir>/journal`."""

    def __init__(self, state_dir: Path, device: str = "") -> None:
        """`device` is the id that a fresh record gets."""
        self._directory = state_dir / "journal"
        self._marker = self._directory / "begun"
        self._room = self._directory / "room"
        self._path = self._directory / "record.json"
        self._device = device
        self._begun = False
        self._tables = TinyDB(self._path, storage=DurableStorage)

    def load(self) -> Record:
        """The newest record saved, or a fresh one on a device that never saved any.

        Raises ProtocolError `untrusted` for a record that is lost, torn, not ours, or that the disk will not give back.
        """
        try:
            with storing("reading the journal"):
                document = self._tables.table(TinyDB.default_table_name).get(doc_id=_RECORD_ID)
                if document is None and not self._path.exists() and not self._marker.exists():
                    return initial(self._device)
                return _record(document)
        except FleetError as error:
            raise ProtocolError("untrusted", f"the journal cannot be read: {error.detail}") from None

    def save(self, record: Record) -> None:
        """Return only when the record would survive a power cut. A cut during the call leaves old or new.

        Raises InstallError `no-space`, `read-only` or `io`; the next `load` then gives the old or the new record.
        """
        value = to_memory(record)
        row = {"format": FORMAT, "sha256": _digest(value), "record": value}
        try:
            self._write(row)
        except InstallError as error:
            if error.code != "no-space" or not self._let_go():
                raise
            self._write(row)
        self._hold()

    def _write(self, row: Mapping[str, Any]) -> None:
        with storing("writing the journal"):
            make_dir(self._directory)
            self._put(row)
            self._mark_begun()

    def _put(self, row: Mapping[str, Any]) -> None:
        """One write. TinyDB's `upsert` would make two of the first save: a table without the record, then with it."""
        table = self._tables.table(TinyDB.default_table_name)
        if table.contains(doc_id=_RECORD_ID):
            table.update(row, doc_ids=[_RECORD_ID])
        else:
            table.insert(Document(row, doc_id=_RECORD_ID))

    def _mark_begun(self) -> None:
        """Rule 3."""
        if not self._begun and not self._marker.exists():
            write_atomic(self._marker, b"a record was saved here\n")
        self._begun = True

    def _let_go(self) -> bool:
        """Rule 4: whether there was room to let go."""
        with storing("writing the journal"):
            held = self._room.exists()
            remove(self._room)
        return held

    def _hold(self) -> None:
        """Rule 4: more than the record has twice, as far as there is so much."""
        with suppress(OSError):
            wanted = _ROOM * (1 + 2 * self._path.stat().st_size // _ROOM)
            descriptor = os.open(self._room, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                _fill_up(descriptor, wanted)
            finally:
                os.close(descriptor)


def _fill_up(descriptor: int, size: int) -> None:
    """The file takes `size` bytes of any disk, or what there is: nobody can store these in less."""
    missing = size - os.fstat(descriptor).st_size
    if missing > 0:
        try:
            while missing > 0:
                missing -= os.write(descriptor, os.urandom(min(missing, _PAGE)))
        finally:
            os.fsync(descriptor)


def _copied(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Deep enough for TinyDB, which changes rows in place before it writes them."""
    return {name: {key: dict(row) for key, row in rows.items()} for name, rows in tables.items()}


def _record(document: Mapping[str, Any] | list[Any] | None) -> Record:
    if not isinstance(document, Mapping):
        raise ProtocolError("schema", "the record is gone")
    if document.keys() != {"format", "sha256", "record"} or document["format"] != FORMAT:
        raise ProtocolError("schema", "it is of another form")
    if document["sha256"] != _digest(document["record"]):
        raise ProtocolError("schema", "its checksum does not match")
    return from_memory(document["record"])


def _digest(value: Any) -> str:
    return hashlib.sha256(strict_json.dumps(value)).hexdigest()


def _is_tables(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(rows, dict) and all(row.isdecimal() and isinstance(rows[row], dict) for row in rows)
        for rows in value.values()
    )
