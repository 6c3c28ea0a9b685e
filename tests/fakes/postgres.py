"""A private PostgreSQL for tests: its own cluster in a temporary directory, reached by a socket in it, no TCP port."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest

from tests.fakes.readiness import start

_OWNERS = ("postgres", "nobody")
_END_S = 30.0
_NUMBERS = count(1)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server with an empty database; skips the test where there is no PostgreSQL to be had."""
    given = os.environ.get("FAIRLEAD_TEST_DATABASE_URL")
    if given:
        yield given
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not programs:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql), nor FAIRLEAD_TEST_DATABASE_URL set")
    with _home() as home:
        yield from _cluster(programs[-1].parent, home)


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """The URL of a new database on that server, dropped in the end."""
    name = f"fairlead_test_{os.getpid()}_{next(_NUMBERS)}"
    with closing(psycopg.connect(server, autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        base, _, query = server.partition("?")
        yield f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    finally:
        with closing(psycopg.connect(server, autocommit=True)) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _cluster(programs: Path, home: Path) -> Iterator[str]:
    owner = home.stat().st_uid
    who = {"user": owner, "group": home.stat().st_gid, "extra_groups": []} if os.getuid() == 0 else {}
    who["cwd"] = home
    data = home / "data"
    initdb = [programs / "initdb", "-D", data, "-U", "fairlead", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    subprocess.run(initdb, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **who)
    argv = [programs / "postgres", "-D", data, "-k", home, "-c", "listen_addresses=", "-c", "fsync=off"]
    url = f"postgresql://fairlead@/postgres?host={home}"
    process = start(argv, home / "log", lambda: _serves(url), **who)
    try:
        yield url
    finally:
        process.send_signal(subprocess.signal.SIGINT)
        process.wait(timeout=_END_S)


def _serves(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def _home() -> Iterator[Path]:
    """A directory of the user that runs the server: it refuses to run as root."""
    home = Path(tempfile.mkdtemp(prefix="fairlead-pg-"))
    try:
        if os.getuid() == 0:
            account = _account()
            os.chown(home, account.pw_uid, account.pw_gid)
        yield home
    finally:
        shutil.rmtree(home)


def _account() -> pwd.struct_passwd:
    for name in _OWNERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses to run as root, and there is no other account to run it")
