"""What a transaction writes with, compiled once for each database.

Everything is an upsert, so that a step that is repeated changes nothing. The compiled text goes to the driver as it
is: for whole batches of messages, SQLAlchemy's work on each row would cost more than the database's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Select,
    Table,
    Text,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ClauseElement

from server.adapters.sql import schema

_JOINED: Final = literal_column("'joined'", Text)
_CHANGE: Final = literal_column("'change '", Text)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Numbers of rows: the next is above those of the rows `among` them, and above the peak of rows that are gone."""

    column: Column[int]
    among: ColumnElement[bool]
    peak: ColumnElement[str]


@dataclass(frozen=True, slots=True)
class Statement:
    """Text for the driver; `places` are the parameters' names in order where the driver counts places."""

    text: str
    places: tuple[str, ...] | None

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute once for each row, in order. Values must be what the driver takes: no booleans, no enums."""
        if not rows:
            return
        if self.places is None:
            connection.exec_driver_sql(self.text, [dict(row) for row in rows])
        else:
            connection.exec_driver_sql(self.text, [tuple([row[name] for name in self.places]) for row in rows])


class Statements:
    """All of them for one database."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    @cached_property
    def put_devices(self) -> Statement:
        """`joined` is a number that was never given before whenever the device is new in its group."""
        table = schema.DEVICES
        new = self._insert(table).excluded
        moved = case((table.c.group != new.group, new.joined), else_=table.c.joined)
        numbers = _Numbers(table.c.joined, true(), _JOINED)
        return self._compiled(self._numbered(numbers, {table.c.joined: moved}))

    @cached_property
    def remove_devices(self) -> tuple[Statement, ...]:
        """Parameter `device`, for each in turn: its numbers are remembered, then it goes with what hangs on it."""
        devices, attempts = schema.DEVICES, schema.ATTEMPTS
        joined = select(_JOINED, devices.c.joined).where(devices.c.id == bindparam("device"))
        change = select(_CHANGE.concat(attempts.c.deployment), attempts.c.change)
        return (
            self._compiled(self._raised(joined)),
            self._compiled(self._raised(change.where(attempts.c.device == bindparam("device")))),
            self._compiled(delete(devices).where(devices.c.id == bindparam("device"))),
        )

    @cached_property
    def raise_peaks(self) -> Statement:
        """A row of the peaks; a lower one than is there changes nothing."""
        table = schema.PEAKS
        return self._compiled(self._higher(self._values(table)))

    @cached_property
    def touch_devices(self) -> Statement:
        """Parameters `device` and `at_s`."""
        table = schema.DEVICES
        at_s: BindParameter[float] = bindparam("at_s", type_=table.c.seen_s.type)
        older = or_(table.c.seen_s.is_(None), table.c.seen_s < at_s)
        return self._compiled(update(table).where(table.c.id == bindparam("device"), older).values(seen_s=at_s))

    @cached_property
    def put_groups(self) -> Statement:
        """A row of the groups."""
        return self._upsert(schema.GROUPS)

    @cached_property
    def put_jobs(self) -> Statement:
        """A row of the jobs."""
        return self._upsert(schema.JOBS)

    @cached_property
    def put_rollouts(self) -> Statement:
        """A row of the rollouts."""
        return self._upsert(schema.ROLLOUTS)

    @cached_property
    def put_attempts(self) -> Statement:
        """A row of the attempts; `change` rises with every one that is put."""
        table = schema.ATTEMPTS
        deployment: BindParameter[str] = bindparam("deployment", type_=table.c.deployment.type)
        numbers = _Numbers(table.c.change, table.c.deployment == deployment, _CHANGE.concat(deployment))
        return self._compiled(self._numbered(numbers, {}))

    @cached_property
    def put_readings(self) -> Statement:
        """A row of the readings; an older one than is there changes nothing."""
        table = schema.READINGS
        statement = self._values(table)
        new = statement.excluded
        return self._compiled(
            statement.on_conflict_do_update(
                index_elements=list(table.primary_key),
                set_={table.c.at_s: new.at_s, table.c.payload: new.payload},
                where=table.c.at_s <= new.at_s,
            )
        )

    @cached_property
    def put_documents(self) -> Statement:
        """A row of the documents."""
        return self._upsert(schema.DOCUMENTS)

    @cached_property
    def forget_documents(self) -> Statement:
        """Parameter `topic`."""
        return self._compiled(delete(schema.DOCUMENTS).where(schema.DOCUMENTS.c.topic == bindparam("topic")))

    @cached_property
    def add_audit(self) -> Statement:
        """A row of the audit log without its number."""
        table = schema.AUDIT
        columns = [column for column in table.columns if not column.primary_key]
        return self._compiled(insert(table).values({column: bindparam(column.name) for column in columns}))

    def _upsert(self, table: Table) -> Statement:
        statement = self._values(table)
        changes = {column: statement.excluded[column.name] for column in _rest(table)}
        return self._compiled(statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changes))

    def _numbered(self, numbers: "_Numbers", changes: Mapping[Column[Any], Any]) -> postgresql.Insert | sqlite.Insert:
        """An upsert that gives the row the next number; `changes` are what it changes otherwise."""
        number, table = numbers.column, numbers.column.table
        assert isinstance(table, Table)
        present = select(func.max(number).label("value")).where(numbers.among)
        past = select(schema.PEAKS.c.value).where(schema.PEAKS.c.name == numbers.peak)
        known = union_all(present, past).subquery()
        highest = func.coalesce(func.max(known.c.value), literal_column("0"))
        following = select(highest + literal_column("1")).scalar_subquery()
        given: dict[Any, Any] = {column: bindparam(column.name) for column in table.columns if column is not number}
        statement = self._insert(table).values({**given, number: following})
        replaced: dict[Any, Any] = {column: statement.excluded[column.name] for column in _rest(table)}
        return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_={**replaced, **changes})

    def _raised(self, numbers: Select[Any]) -> postgresql.Insert | sqlite.Insert:
        """Peaks from the rows of a question."""
        return self._higher(self._insert(schema.PEAKS).from_select(["name", "value"], numbers))

    def _higher(self, statement: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
        value = schema.PEAKS.c.value
        return statement.on_conflict_do_update(
            index_elements=[schema.PEAKS.c.name],
            set_={value: statement.excluded.value},
            where=value < statement.excluded.value,
        )

    def _values(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        return self._insert(table).values({column: bindparam(column.name) for column in table.columns})

    def _insert(self, table: Table) -> postgresql.Insert | sqlite.Insert:
        return postgresql.insert(table) if self._dialect.name == "postgresql" else sqlite.insert(table)

    def _compiled(self, statement: ClauseElement) -> Statement:
        compiled: Any = statement.compile(dialect=self._dialect)
        return Statement(compiled.string, tuple(compiled.positiontup) if compiled.positional else None)


def _rest(table: Table) -> list[Column[Any]]:
    return [column for column in table.columns if not column.primary_key]
