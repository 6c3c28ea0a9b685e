"""Runs the migrations on the connection that `server.adapters.sql.migrate` hands over, in its transaction.

A new migration: change `schema.py`, then write `versions/<next number>_<what>.py` by hand beside the others;
`tests/integration/test_sql_migrations.py` fails until both agree.
"""

from alembic import context

from server.adapters.sql.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
