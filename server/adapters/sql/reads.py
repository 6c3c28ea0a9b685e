"""The reading half of a transaction."""

from collections.abc import Collection, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from fleet_protocol.messages import OUTCOMES
from server.adapters.sql import rows, schema
from server.adapters.sql.rows import Shape
from server.domain.engine import FINAL_STATES
from server.domain.fleet import AttemptSeen, AuditEntry, Device, Group
from server.domain.job import Job
from server.domain.rollout import Rollout, RolloutState
from server.ports import Member, Reading, Vote

T = TypeVar("T")
_OUTCOMES: Final = frozenset((None, *OUTCOMES))
_SLICE: Final = 1_000
"""Ids in one question: databases bound the number of parameters."""


class SqlReads:
    """`Reads` over one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def device(self, device_id: str) -> Device | None:
        return self._one(rows.DEVICES, schema.DEVICES.c.id == device_id)

    def devices(self, group: str | None = None) -> list[Device]:
        return self._all(rows.DEVICES, *_equal(schema.DEVICES.c.group, group))

    def devices_by_id(self, ids: Collection[str]) -> dict[str, Device]:
        return {
            device.id: device
            for part in _slices(ids)
            for device in self._all(rows.DEVICES, schema.DEVICES.c.id.in_(part))
        }

    def enrolled(self, ids: Collection[str]) -> set[str]:
        column = schema.DEVICES.c.id
        return {row[0] for part in _slices(ids) for row in self._rows(select(column).where(column.in_(part)))}

    def device_counts(self) -> tuple[int, int]:
        online = func.count().filter(schema.DEVICES.c.available == 1)
        row = self._connection.execute(select(func.count(), online).select_from(schema.DEVICES)).one()
        return int(row[0]), int(row[1])

    def roster_stamp(self, group: str) -> tuple[int, int]:
        joined = schema.DEVICES.c.joined
        question = select(func.count(), func.coalesce(func.max(joined), 0)).where(schema.DEVICES.c.group == group)
        count, newest = self._rows(question)[0]
        return int(count), int(newest)

    def roster(self, group: str) -> list[Member]:
        table = schema.DEVICES
        question = select(table.c.id, table.c.device_class).where(table.c.group == group).order_by(table.c.id)
        return [Member._make(row) for row in self._rows(question)]

    def unheard(self, group: str, before_s: float) -> list[str]:
        table = schema.DEVICES
        late = or_(table.c.seen_s.is_(None), table.c.seen_s < before_s)
        question = select(table.c.id).where(table.c.group == group, late).order_by(table.c.id)
        return [row[0] for row in self._rows(question)]

    def group(self, name: str) -> Group | None:
        return self._one(rows.GROUPS, schema.GROUPS.c.name == name)

    def groups(self) -> list[Group]:
        return self._all(rows.GROUPS)

    def group_names(self) -> list[str]:
        column = schema.GROUPS.c.name
        return [row[0] for row in self._rows(select(column).order_by(column))]

    def job(self, job_id: str) -> Job | None:
        return self._one(rows.JOBS, schema.JOBS.c.id == job_id)

    def jobs(self, group: str | None = None) -> list[Job]:
        if group is None:
            return self._all(rows.JOBS)
        of_group = select(schema.ROLLOUTS.c.id).where(schema.ROLLOUTS.c.group == group)
        return self._all(rows.JOBS, schema.JOBS.c.id.in_(of_group))

    def standing_jobs(self, group: str) -> list[str]:
        jobs, rollouts = schema.JOBS, schema.ROLLOUTS
        standing = (rollouts.c.group == group, jobs.c.superseded != 1)
        question = select(jobs.c.id).join(rollouts, rollouts.c.id == jobs.c.id).where(*standing)
        return [row[0] for row in self._rows(question.order_by(jobs.c.created_s, jobs.c.id))]

    def rollout(self, rollout_id: str) -> Rollout | None:
        return self._one(rows.ROLLOUTS, schema.ROLLOUTS.c.id == rollout_id)

    def rollouts(self, group: str | None = None, state: RolloutState | None = None) -> list[Rollout]:
        table = schema.ROLLOUTS
        return self._all(rows.ROLLOUTS, *_equal(table.c.group, group), *_equal(table.c.state, state))

    def moving(self) -> list[str]:
        table = schema.ROLLOUTS
        question = select(table.c.id).where(table.c.state.not_in(sorted(FINAL_STATES))).order_by(table.c.id)
        return [row[0] for row in self._rows(question)]

    def rollout_counts(self) -> dict[str, int]:
        state = schema.ROLLOUTS.c.state
        return {row[0]: int(row[1]) for row in self._rows(select(state, func.count()).group_by(state))}

    def attempt(self, deployment: str, device: str) -> AttemptSeen | None:
        table = schema.ATTEMPTS
        return self._one(rows.ATTEMPTS, table.c.deployment == deployment, table.c.device == device)

    def attempts(self, deployment: str) -> list[AttemptSeen]:
        return self._all(rows.ATTEMPTS, schema.ATTEMPTS.c.deployment == deployment)

    def votes(self, deployment: str, after: int = 0) -> list[Vote]:
        """Read without pydantic: there may be as many as devices."""
        table = schema.ATTEMPTS
        columns = (table.c.device, table.c.version, table.c.outcome, table.c.code, table.c.at_s, table.c.change)
        new = (table.c.deployment == deployment, table.c.change > after)
        question = select(*columns).where(*new).order_by(table.c.change)
        votes = [Vote._make(row) for row in self._rows(question)]
        if not {vote.outcome for vote in votes} <= _OUTCOMES:
            self.attempts(deployment)  # raises, and names the row
        return votes

    def readings(self, device: str) -> list[Reading]:
        return self._all(rows.READINGS, schema.READINGS.c.device == device)

    def readings_of(self, group: str | None, kinds: Collection[str]) -> list[Reading]:
        table, devices = schema.READINGS, schema.DEVICES
        wanted = [table.c.kind.in_(sorted(kinds))]
        if group is not None:
            wanted.append(table.c.device.in_(select(devices.c.id).where(devices.c.group == group)))
        return self._all(rows.READINGS, *wanted)

    def document(self, topic: str) -> bytes | None:
        documents = self._all(rows.DOCUMENTS, schema.DOCUMENTS.c.topic == topic)
        return documents[0].payload if documents else None

    def documents(self) -> list[tuple[str, bytes]]:
        return [(document.topic, document.payload) for document in self._all(rows.DOCUMENTS)]

    def peak(self, name: str) -> int:
        found = self._rows(select(schema.PEAKS.c.value).where(schema.PEAKS.c.name == name))
        return int(found[0][0]) if found else 0

    def audit_entries(self, most: int) -> list[AuditEntry]:
        question = select(*rows.AUDIT.columns).order_by(schema.AUDIT.c.number.desc()).limit(most)
        return [rows.AUDIT.decode(row) for row in self._rows(question)]

    def _one(self, shape: Shape[T], *where: ColumnElement[bool]) -> T | None:
        row = self._connection.execute(select(*shape.columns).where(*where)).first()
        return None if row is None else shape.decode(row)

    def _all(self, shape: Shape[T], *where: ColumnElement[bool]) -> list[T]:
        order = [shape.table.c[name] for name in shape.key]
        question = select(*shape.columns).where(*where).order_by(*order)
        return [shape.decode(row) for row in self._rows(question)]

    def _rows(self, question: Select[Any]) -> Sequence[Any]:
        return self._connection.execute(question).all()


def _equal(column: ColumnElement[Any], value: str | None) -> list[ColumnElement[bool]]:
    return [] if value is None else [column == value]


def _slices(ids: Collection[str]) -> list[list[str]]:
    distinct = sorted(set(ids))
    return [distinct[start : start + _SLICE] for start in range(0, len(distinct), _SLICE)]
