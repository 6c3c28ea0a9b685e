"""A transaction that may write. Everything is an upsert, so that a step that is repeated changes nothing."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    Executable,
    Table,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from fleet_protocol.errors import PolicyError
from server.adapters.sql import rows, schema
from server.adapters.sql.reads import SqlReads
from server.domain.fleet import AttemptSeen, AuditEntry, Device, Group
from server.domain.job import Job
from server.domain.rollout import Rollout
from server.ports import Reading


class SqlWork(SqlReads):
    """`Work` over one open transaction."""

    def put_device(self, device: Device) -> None:
        self.put_devices([device])

    def put_devices(self, devices: Sequence[Device]) -> None:
        self._run(_put_devices(self._dialect), [rows.DEVICES.encode(device) for device in devices])

    def touch_devices(self, seen: Sequence[tuple[str, float]]) -> None:
        self._run(_touch(), [{"device_id": name, "at_s": at_s} for name, at_s in seen])

    def put_group(self, group: Group) -> None:
        self._run(_upsert(self._dialect, schema.GROUPS), [rows.GROUPS.encode(group)])

    def put_job(self, job: Job) -> None:
        self._run(_upsert(self._dialect, schema.JOBS), [rows.JOBS.encode(job)])

    def put_rollout(self, rollout: Rollout) -> None:
        self._run(_upsert(self._dialect, schema.ROLLOUTS), [rows.ROLLOUTS.encode(rollout)])

    def put_attempts(self, attempts: Sequence[AttemptSeen]) -> None:
        encoded = [rows.ATTEMPTS.encode(attempt) for attempt in attempts]
        self._run_for_enrolled(_upsert(self._dialect, schema.ATTEMPTS), encoded)

    def put_readings(self, readings: Sequence[Reading]) -> None:
        encoded = [rows.READINGS.encode(reading) for reading in readings]
        self._run_for_enrolled(_put_readings(self._dialect), encoded)

    def put_document(self, topic: str, payload: bytes | None) -> None:
        if payload is None:
            self._run(_forget_document(), [{"wanted": topic}])
        else:
            self._run(_upsert(self._dialect, schema.DOCUMENTS), [{"topic": topic, "payload": payload}])

    def audit(self, entry: AuditEntry) -> None:
        self._run(insert(schema.AUDIT), [rows.AUDIT.encode(entry)])

    @property
    def _dialect(self) -> str:
        return self._connection.dialect.name

    def _run(self, statement: Executable, parameters: list[dict[str, Any]]) -> None:
        if parameters:
            self._connection.execute(statement, parameters)

    def _run_for_enrolled(self, statement: Executable, parameters: list[dict[str, Any]]) -> None:
        try:
            self._run(statement, parameters)
        except IntegrityError:
            some = ", ".join(sorted({row["device"] for row in parameters})[:3])
            raise PolicyError("unknown-node", f"a device is not enrolled, one of {some}") from None


@cache
def _upsert(dialect: str, table: Table) -> Executable:
    statement = _insert(dialect, table).values({column: bindparam(column.name) for column in table.columns})
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={column: statement.excluded[column.name] for column in _rest(table)},
    )


@cache
def _put_devices(dialect: str) -> Executable:
    """`joined` is a number that was never given before whenever the device is new in its group."""
    table = schema.DEVICES
    joined = select(func.coalesce(func.max(table.c.joined), 0) + 1).scalar_subquery()
    given: dict[Any, Any] = {column: bindparam(column.name) for column in table.columns if column is not table.c.joined}
    statement = _insert(dialect, table).values({**given, table.c.joined: joined})
    new = statement.excluded
    moved = case((table.c.group != new.group, new.joined), else_=table.c.joined)
    changes = {column: new[column.name] for column in _rest(table)}
    return statement.on_conflict_do_update(index_elements=[table.c.id], set_={**changes, table.c.joined: moved})


@cache
def _put_readings(dialect: str) -> Executable:
    table = schema.READINGS
    statement = _insert(dialect, table).values({column: bindparam(column.name) for column in table.columns})
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={table.c.at_s: new.at_s, table.c.payload: new.payload},
        where=table.c.at_s <= new.at_s,
    )


@cache
def _touch() -> Executable:
    table = schema.DEVICES
    at_s: BindParameter[float] = bindparam("at_s")
    older = or_(table.c.seen_s.is_(None), table.c.seen_s < at_s)
    return update(table).where(table.c.id == bindparam("device_id"), older).values(seen_s=at_s)


@cache
def _forget_document() -> Executable:
    return delete(schema.DOCUMENTS).where(schema.DOCUMENTS.c.topic == bindparam("wanted"))


def _insert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def _rest(table: Table) -> list[Column[Any]]:
    return [column for column in table.columns if not column.primary_key]
