"""Brings a database to the schema of this version, or says in one line why it can not be used.

The migrations lie in this package, so that they work from an installed wheel. They run in one transaction under the
writers' lock: of two servers that start at once, the second finds nothing left to do.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from fleet_protocol.errors import PolicyError

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Create or upgrade the tables within the connection's transaction.

    Raises PolicyError `database` for a schema of a newer version, or tables that are not Fairlead's.
    """
    config = _config()
    found = _revision(connection)
    if found == _head(config):
        return
    _check_known(config, found)
    if found is None and inspect(connection).get_table_names():
        raise PolicyError("database", "the database holds other tables than Fairlead's: give it one of its own")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def check_schema(connection: Connection) -> None:
    """Raise PolicyError `database` unless the schema is exactly this version's."""
    config = _config()
    found = _revision(connection)
    _check_known(config, found)
    if found != _head(config):
        raise PolicyError(
            "database", f"the schema is {found or 'empty'}, wanted {_head(config)}: start the server once to upgrade it"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _head(config: Config) -> str:
    head = ScriptDirectory.from_config(config).get_current_head()
    if head is None:
        raise PolicyError("setup", f"no migrations in {MIGRATIONS}: the installation is incomplete")
    return head


def _revision(connection: Connection) -> str | None:
    heads = MigrationContext.configure(connection).get_current_heads()
    if len(heads) > 1:
        raise PolicyError("database", f"the schema names several versions: {', '.join(heads)}")
    return heads[0] if heads else None


def _check_known(config: Config, found: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise PolicyError(
            "database", f"the schema {found} is of a newer Fairlead: install that version, or restore a backup"
        )
