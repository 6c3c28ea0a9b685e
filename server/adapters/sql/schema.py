"""The tables. Nested values are JSON in text columns, so that a person can read and query them.

Columns are named as the domain's fields; `joined` and `change` alone belong to the store. Booleans are 0 and 1. Column
types return what the database holds, unconverted: `rows` checks it and can then say which row is wrong.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)


class Blob(LargeBinary):
    """Bytes, read without a conversion that would fail on what was edited by hand."""

    def result_processor(self, dialect: Any, coltype: Any) -> None:  # noqa: ARG002 - SQLAlchemy's signature
        """None: the row's reader checks the type."""
        return


DEVICES: Final = Table(
    "devices",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("group", Text, nullable=False),
    Column("device_class", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("enrolled_s", Double, nullable=False),
    Column("seen_s", Double),
    Column("available", SmallInteger, nullable=False),
    Column("boot", Text),
    Column("report_counter", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("root", BigInteger, nullable=False),
    Column("stage", Text),
    Column("why", Text, nullable=False),
    Column("installed", Text, nullable=False),
    Column("attack", Text),
    Column("attacks", Text, nullable=False),
    Column("joined", BigInteger, nullable=False),
    Index(None, "group", "joined"),
    Index(None, "joined"),
)

GROUPS: Final = Table(
    "device_groups",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("issued_s", Double),
)

JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("update_type", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("targets", Text, nullable=False),
    Column("sources", Text, nullable=False),
    Column("salt", Text, nullable=False),
    Column("fallback", Text),
    Column("not_before", Text),
    Column("window", Text),
    Column("created_s", Double, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("superseded", SmallInteger, nullable=False),
)

ROLLOUTS: Final = Table(
    "rollouts",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("group", Text, nullable=False),
    Column("package", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("policy", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("wave", Integer, nullable=False),
    Column("shares", Text, nullable=False, server_default="[]"),
    Column("wave_opened_s", Double),
    Column("advance", SmallInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("excused_failures", BigInteger, nullable=False),
    Column("excused_silent", BigInteger, nullable=False),
    Index(None, "group"),
    Index(None, "state"),
)

ATTEMPTS: Final = Table(
    "attempts",
    METADATA,
    Column("deployment", Text, primary_key=True),
    Column("device", Text, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("stage", Text, nullable=False),
    Column("outcome", Text),
    Column("code", Text),
    Column("detail", Text, nullable=False),
    Column("at_s", Double, nullable=False),
    Column("change", BigInteger, nullable=False),
    Index(None, "device"),
    Index(None, "deployment", "change"),
    sqlite_with_rowid=False,
)

READINGS: Final = Table(
    "readings",
    METADATA,
    Column("device", Text, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("payload", Blob, nullable=False),
)

DOCUMENTS: Final = Table(
    "documents",
    METADATA,
    Column("topic", Text, primary_key=True),
    Column("payload", Blob, nullable=False),
)

PEAKS: Final = Table(
    "peaks",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

AUDIT: Final = Table(
    "audit",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at_s", Double, nullable=False),
    Column("who", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
