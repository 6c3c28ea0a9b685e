"""The store itself: transactions in order, snapshots beside them, and the database's errors in our words."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from fleet_protocol.errors import FleetError, PolicyError, TransportError
from server.adapters.sql.engines import database_url, reading_engine, writing_engine
from server.adapters.sql.migrate import check_schema, upgrade
from server.adapters.sql.reads import SqlReads
from server.adapters.sql.statements import Statements
from server.adapters.sql.work import SqlWork
from server.ports import Reads, Work


class SqlStore:
    """A `Store` in the database of one URL, brought to this version's schema when it is opened.

    Raises PolicyError `setup` for a URL that is none, `database` where the schema is another version's and may not
    or can not be upgraded; TransportError `unreachable` where there is no database.
    """

    def __init__(self, url: str, *, migrate: bool = True) -> None:
        parsed = database_url(url)
        self._writing = writing_engine(parsed)
        self._reading = reading_engine(parsed)
        self._statements = Statements(self._writing.dialect)
        self._turn = threading.Lock()
        self._owner: int | None = None
        try:
            with _in_our_words(opening=True):
                self._open(migrate=migrate)
        except BaseException:
            self.close()
            raise

    def _open(self, *, migrate: bool) -> None:
        if migrate:
            with self._writing.begin() as connection:
                upgrade(connection)
        else:
            with self._reading.begin() as connection:
                check_schema(connection)

    @contextmanager
    def begin(self) -> Iterator[Work]:
        """A transaction; a second one in the same thread is a programming error, for it would wait for itself."""
        if self._owner == threading.get_ident():
            raise RuntimeError("a transaction of this thread is already open")
        with self._turn:
            self._owner = threading.get_ident()
            try:
                with _in_our_words(), self._writing.begin() as connection:
                    yield SqlWork(connection, self._statements)
            finally:
                self._owner = None

    @contextmanager
    def read(self) -> Iterator[Reads]:
        """A snapshot. SQLite takes it at the first question."""
        with _in_our_words(), self._reading.begin() as connection:
            yield SqlReads(connection)

    def close(self) -> None:
        """Close all connections; the store can not be used after."""
        for engine in (self._writing, self._reading):
            engine.dispose()


@contextmanager
def _in_our_words(*, opening: bool = False) -> Iterator[None]:
    """A database that does not answer is a TransportError: whoever can wait, waits. A bad value is a PolicyError.

    A file that turns out to be no database, or a damaged one, is the former once the server runs: nothing may be
    thrown away because of it before somebody has mended it.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise TransportError("unreachable", f"database: {error}") from error
    except DBAPIError as error:
        raise _translated(error, opening=opening) from error


def _translated(error: DBAPIError, *, opening: bool) -> FleetError:
    text = str(error.orig).strip().splitlines()[0][:300] if str(error.orig).strip() else "no answer"
    if "Could not decode to UTF-8" in text:
        return PolicyError("database", text)
    damaged = type(error) is DatabaseError and not opening
    if damaged or isinstance(error, OperationalError | InterfaceError):
        return TransportError("unreachable", f"database: {text}")
    return PolicyError("database", text)
