"""A transaction that may write."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from fleet_protocol.errors import PolicyError
from server.adapters.sql import rows
from server.adapters.sql.reads import SqlReads
from server.adapters.sql.statements import Statement, Statements
from server.domain.fleet import AttemptSeen, AuditEntry, Device, Group
from server.domain.job import Job
from server.domain.rollout import Rollout
from server.ports import Reading


class SqlWork(SqlReads):
    """`Work` over one open transaction."""

    def __init__(self, connection: Connection, statements: Statements) -> None:
        super().__init__(connection)
        self._statements = statements

    def put_device(self, device: Device) -> None:
        self.put_devices([device])

    def put_devices(self, devices: Sequence[Device]) -> None:
        self._run(self._statements.put_devices, [rows.DEVICES.encode(device) for device in devices])

    def remove_device(self, device_id: str) -> None:
        for statement in self._statements.remove_devices:
            self._run(statement, [{"device": device_id}])

    def touch_devices(self, seen: Sequence[tuple[str, float]]) -> None:
        self._run(self._statements.touch_devices, [{"device": name, "at_s": at_s} for name, at_s in seen])

    def put_group(self, group: Group) -> None:
        self._run(self._statements.put_groups, [rows.GROUPS.encode(group)])

    def put_job(self, job: Job) -> None:
        self._run(self._statements.put_jobs, [rows.JOBS.encode(job)])

    def put_rollout(self, rollout: Rollout) -> None:
        self._run(self._statements.put_rollouts, [rows.ROLLOUTS.encode(rollout)])

    def put_attempts(self, attempts: Sequence[AttemptSeen]) -> None:
        encoded = [rows.ATTEMPTS.encode(attempt) for attempt in attempts]
        self._run_for_enrolled(self._statements.put_attempts, encoded)

    def put_readings(self, readings: Sequence[Reading]) -> None:
        encoded = [{"device": r.device, "kind": r.kind, "at_s": r.at_s, "payload": r.payload} for r in readings]
        self._run_for_enrolled(self._statements.put_readings, encoded)

    def put_document(self, topic: str, payload: bytes | None) -> None:
        if payload is None:
            self._run(self._statements.forget_documents, [{"topic": topic}])
        else:
            self._run(self._statements.put_documents, [{"topic": topic, "payload": payload}])

    def raise_peak(self, name: str, value: int) -> None:
        self._run(self._statements.raise_peaks, [{"name": name, "value": value}])

    def audit(self, entry: AuditEntry) -> None:
        self._run(self._statements.add_audit, [rows.AUDIT.encode(entry)])

    def _run(self, statement: Statement, parameters: Sequence[Mapping[str, Any]]) -> None:
        statement.run(self._connection, parameters)

    def _run_for_enrolled(self, statement: Statement, parameters: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._run(statement, parameters)
        except IntegrityError:
            some = ", ".join(sorted({row["device"] for row in parameters})[:3])
            raise PolicyError("unknown-node", f"a device is not enrolled, one of {some}") from None
