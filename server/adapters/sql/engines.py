"""Connections: one for writing, several for reading, and what each database needs to keep the promises of `Store`.

SQLite: WAL, so that readers never wait; `synchronous=FULL`, because a QoS 1 message is acknowledged after its commit
and the broker then forgets it: NORMAL would lose the newest commits in a power cut (https://sqlite.org/pragma.html).
PostgreSQL: an advisory lock makes the writers of all processes wait for each other.
"""

from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from fleet_protocol.errors import PolicyError

BUSY_TIMEOUT_S: Final = 10.0
WRITERS_LOCK: Final = 0x666C656574
"""The advisory lock of whoever writes: `fleet` in ASCII."""
_DIALECTS: Final = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


def database_url(text: str) -> URL:
    """The database that the text names, `sqlite:///<path>` or `postgresql://...`, or PolicyError `setup`."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise PolicyError(
            "setup", "DATABASE_URL is not a URL: write sqlite:///<path> or postgresql://<host>/<name>"
        ) from None
    dialect = _DIALECTS.get(url.get_backend_name())
    if dialect is None or (dialect.startswith("sqlite") and url.database in (None, "", ":memory:")):
        raise PolicyError("setup", f"the database must be a SQLite file or PostgreSQL, not {url.render_as_string()}")
    return url.set(drivername=dialect)


def writing_engine(url: URL) -> Engine:
    """An engine of one connection, whose transactions hold the writers' lock from their beginning."""
    engine = create_engine(url, pool_size=1, max_overflow=0, connect_args=_arguments(url), pool_pre_ping=_remote(url))
    _prepare(engine)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if _remote(url):
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%(key)s)", {"key": WRITERS_LOCK})
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(url: URL) -> Engine:
    """An engine whose transactions see one snapshot and can not write."""
    engine = create_engine(url, pool_size=4, max_overflow=28, connect_args=_arguments(url), pool_pre_ping=_remote(url))
    _prepare(engine)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if _remote(url):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        else:
            connection.exec_driver_sql("BEGIN")

    return engine


def _remote(url: URL) -> bool:
    return url.get_backend_name() != "sqlite"


def _arguments(url: URL) -> dict[str, Any]:
    if _remote(url):
        return {"connect_timeout": int(BUSY_TIMEOUT_S)}
    return {"timeout": BUSY_TIMEOUT_S, "isolation_level": None}


def _prepare(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        return

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
