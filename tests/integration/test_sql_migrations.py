"""The schema: made by migrations, equal to the tables in code, refused where it is another version's."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from fleet_protocol.errors import PolicyError, TransportError
from server.adapters.sql.engines import database_url
from server.adapters.sql.schema import METADATA
from server.adapters.sql.store import SqlStore
from server.domain.fleet import Group
from tests.fakes.postgres import fresh_database, postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/fairlead.db"
        return
    with fresh_database(request.getfixturevalue("server")) as fresh:
        yield fresh


def execute(url: str, *statements: str) -> None:
    engine = create_engine(database_url(url))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_the_migrations_make_exactly_the_tables_in_code(url: str) -> None:
    SqlStore(url).close()
    engine = create_engine(database_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_opening_again_changes_nothing(url: str) -> None:
    for _ in range(2):
        store = SqlStore(url)
        with store.begin() as work:
            work.put_group(Group(name="line-1", sequence=(work.group("line-1") or Group(name="x")).sequence + 1))
        store.close()
    store = SqlStore(url, migrate=False)
    with store.read() as reads:
        assert reads.groups() == [Group(name="line-1", sequence=2)]
    store.close()


def test_a_database_of_the_first_schema_is_upgraded_with_what_it_holds(url: str) -> None:
    store = SqlStore(url)
    with store.begin() as work:
        work.put_group(Group(name="line-1", sequence=7))
    store.close()
    execute(
        url,
        "DROP TABLE peaks",
        "ALTER TABLE rollouts DROP COLUMN shares",
        "UPDATE alembic_version SET version_num = '0001'",
    )
    store = SqlStore(url)
    with store.begin() as work:
        work.raise_peak("x", 3)
        assert (work.groups(), work.peak("x")) == ([Group(name="line-1", sequence=7)], 3)
    store.close()


def test_servers_that_start_at_once_do_not_disturb_each_other(url: str) -> None:
    errors: list[Exception] = []

    def start() -> None:
        try:
            SqlStore(url).close()
        except (PolicyError, TransportError) as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_newer_schema_is_refused_in_one_line(url: str) -> None:
    SqlStore(url).close()
    execute(url, "UPDATE alembic_version SET version_num = '9999'")
    for migrate in (True, False):
        with pytest.raises(PolicyError) as caught:
            SqlStore(url, migrate=migrate)
        assert caught.value.code == "database"
        assert "newer" in caught.value.detail
        assert "\n" not in str(caught.value)


def test_an_older_schema_is_refused_where_it_may_not_be_upgraded(url: str) -> None:
    with pytest.raises(PolicyError) as caught:
        SqlStore(url, migrate=False)
    assert caught.value.code == "database"
    assert "start the server once" in caught.value.detail


def test_a_database_of_another_program_is_left_alone(url: str) -> None:
    execute(url, "CREATE TABLE cats (name TEXT)")
    with pytest.raises(PolicyError) as caught:
        SqlStore(url)
    assert caught.value.code == "database"


def test_a_migration_that_fails_leaves_nothing_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PolicyError("database", "half way")

    monkeypatch.setattr("alembic.operations.Operations.create_index", fail)
    with pytest.raises(PolicyError, match="half way"):
        SqlStore(url)
    monkeypatch.undo()
    SqlStore(url).close()


@pytest.mark.parametrize(
    "bad", ["", "fairlead.db", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "sqlite+pysqlite:///", "postgres//x"]
)
def test_another_address_gets_one_clear_line(bad: str) -> None:
    with pytest.raises(PolicyError) as caught:
        SqlStore(bad)
    assert caught.value.code == "setup"
    assert "\n" not in str(caught.value)


def test_a_password_in_a_refused_address_is_not_shown() -> None:
    with pytest.raises(PolicyError) as caught:
        SqlStore("mysql://user:secret@host/name")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fairlead.db"
    path.write_bytes(b"this is a letter, not a database\n" * 100)
    with pytest.raises(PolicyError) as caught:
        SqlStore(f"sqlite:///{path}")
    assert caught.value.code == "database"


def test_a_place_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(TransportError) as caught:
        SqlStore(f"sqlite:///{tmp_path}/none/fairlead.db")
    assert caught.value.code == "unreachable"


def test_a_database_server_that_is_not_there_is_told() -> None:
    with pytest.raises(TransportError) as caught:
        SqlStore("postgresql://nobody@127.0.0.1:1/nothing")
    assert caught.value.code == "unreachable"
    assert "\n" not in str(caught.value)


def test_a_commit_outlives_kill_9(tmp_path: Path) -> None:
    """The process dies between two commits without a word; the first is there, the second is not."""
    path = tmp_path / "fairlead.db"
    script = """
import os, signal, sys
from server.adapters.sql.store import SqlStore
from server.domain.fleet import Group
store = SqlStore(sys.argv[1])
with store.begin() as work:
    work.put_group(Group(name="first"))
with store.begin() as work:
    work.put_group(Group(name="second"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script, f"sqlite:///{path}"], check=False)
    store = SqlStore(f"sqlite:///{path}")
    with store.read() as reads:
        assert reads.groups() == [Group(name="first")]
    store.close()


def test_sqlite_is_set_so_that_a_commit_survives_a_power_cut(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/fairlead.db")
    for engine in (store._writing, store._reading):
        with engine.connect() as connection:
            found = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        assert found == ["wal", 2, 1]
    store.close()


def test_another_process_that_holds_the_database_for_long_is_a_passing_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.adapters.sql.engines.BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "fairlead.db"
    store = SqlStore(f"sqlite:///{path}")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransportError) as caught, store.begin():
            pass
        assert caught.value.code == "unreachable"
        with store.read() as reads:
            assert reads.groups() == []
    with store.begin() as work:
        work.put_group(Group(name="line-1"))
    store.close()
