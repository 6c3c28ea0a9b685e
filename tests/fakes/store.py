"""The server's memory without a database: the same contract, kept in dictionaries.

A transaction works on copies and swaps them in at its end, so that a block that raises leaves nothing behind.
"""

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from fleet_protocol.errors import PolicyError
from server.domain.engine import FINAL_STATES
from server.domain.fleet import AttemptSeen, AuditEntry, Device, Group
from server.domain.job import Job
from server.domain.rollout import Rollout, RolloutState
from server.ports import Member, Reading, Reads, Vote, Work


@dataclass
class Tables:
    """Everything that a store holds. Values are immutable, so a copy need not be deep."""

    devices: dict[str, Device] = field(default_factory=dict)
    joined: dict[str, int] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    attempts: dict[tuple[str, str], AttemptSeen] = field(default_factory=dict)
    changes: dict[tuple[str, str], int] = field(default_factory=dict)
    readings: dict[tuple[str, str], Reading] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    audit: list[AuditEntry] = field(default_factory=list)

    def copy(self) -> "Tables":
        """An independent copy."""
        return Tables(
            devices=dict(self.devices),
            joined=dict(self.joined),
            groups=dict(self.groups),
            jobs=dict(self.jobs),
            rollouts=dict(self.rollouts),
            attempts=dict(self.attempts),
            changes=dict(self.changes),
            readings=dict(self.readings),
            documents=dict(self.documents),
            peaks=dict(self.peaks),
            audit=list(self.audit),
        )


class MemoryStore:
    """A `Store` that forgets everything when the process ends."""

    def __init__(self) -> None:
        self._tables = Tables()
        self._writer = threading.Lock()
        self._owner: int | None = None

    @contextmanager
    def begin(self) -> Iterator[Work]:
        """A transaction; a second one in the same thread is a programming error."""
        if self._owner == threading.get_ident():
            raise RuntimeError("a transaction of this thread is already open")
        with self._writer:
            self._owner = threading.get_ident()
            try:
                work = MemoryWork(self._tables.copy())
                yield work
                self._tables = work.tables
            finally:
                self._owner = None

    @contextmanager
    def read(self) -> Iterator[Reads]:
        """A snapshot: transactions replace the tables, they never change them."""
        yield MemoryReads(self._tables)

    def close(self) -> None:
        """Nothing to release."""


class MemoryReads:
    """The reading half, over one set of tables."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def device(self, device_id: str) -> Device | None:
        return self.tables.devices.get(device_id)

    def devices(self, group: str | None = None) -> list[Device]:
        devices = sorted(self.tables.devices.values(), key=lambda device: device.id)
        return [device for device in devices if group in (None, device.group)]

    def devices_by_id(self, ids: Collection[str]) -> dict[str, Device]:
        return {name: self.tables.devices[name] for name in ids if name in self.tables.devices}

    def enrolled(self, ids: Collection[str]) -> set[str]:
        return {name for name in ids if name in self.tables.devices}

    def device_counts(self) -> tuple[int, int]:
        return len(self.tables.devices), sum(device.available for device in self.tables.devices.values())

    def roster_stamp(self, group: str) -> tuple[int, int]:
        joined = [self.tables.joined[device.id] for device in self.devices(group)]
        return len(joined), max(joined, default=0)

    def roster(self, group: str) -> list[Member]:
        return [Member(device.id, device.device_class) for device in self.devices(group)]

    def unheard(self, group: str, before_s: float) -> list[str]:
        return [device.id for device in self.devices(group) if device.seen_s is None or device.seen_s < before_s]

    def group(self, name: str) -> Group | None:
        return self.tables.groups.get(name)

    def groups(self) -> list[Group]:
        return sorted(self.tables.groups.values(), key=lambda group: group.name)

    def group_names(self) -> list[str]:
        return sorted(self.tables.groups)

    def job(self, job_id: str) -> Job | None:
        return self.tables.jobs.get(job_id)

    def jobs(self, group: str | None = None) -> list[Job]:
        jobs = sorted(self.tables.jobs.values(), key=lambda job: job.id)
        return [job for job in jobs if group is None or self._group_of(job.id) == group]

    def standing_jobs(self, group: str) -> list[str]:
        standing = [job for job in self.jobs(group) if not job.superseded]
        return [job.id for job in sorted(standing, key=lambda job: (job.created_s, job.id))]

    def rollout(self, rollout_id: str) -> Rollout | None:
        return self.tables.rollouts.get(rollout_id)

    def rollouts(self, group: str | None = None, state: RolloutState | None = None) -> list[Rollout]:
        rollouts = sorted(self.tables.rollouts.values(), key=lambda rollout: rollout.id)
        return [r for r in rollouts if group in (None, r.group) and state in (None, r.state)]

    def moving(self) -> list[str]:
        return [rollout.id for rollout in self.rollouts() if rollout.state not in FINAL_STATES]

    def rollout_counts(self) -> dict[str, int]:
        return dict(Counter(rollout.state.value for rollout in self.tables.rollouts.values()))

    def attempt(self, deployment: str, device: str) -> AttemptSeen | None:
        return self.tables.attempts.get((deployment, device))

    def attempts(self, deployment: str) -> list[AttemptSeen]:
        rows = sorted(self.tables.attempts.items())
        return [attempt for (of, _), attempt in rows if of == deployment]

    def votes(self, deployment: str, after: int = 0) -> list[Vote]:
        changes = {device: change for (of, device), change in self.tables.changes.items() if of == deployment}
        attempts = self.attempts(deployment)
        votes = [Vote(a.device, a.version, a.outcome, a.code, a.at_s, changes[a.device]) for a in attempts]
        return sorted((vote for vote in votes if vote.change > after), key=lambda vote: vote.change)

    def readings(self, device: str) -> list[Reading]:
        return [reading for (of, _), reading in sorted(self.tables.readings.items()) if of == device]

    def readings_of(self, group: str | None, kinds: Collection[str]) -> list[Reading]:
        names = [device.id for device in self.devices(group)]
        return [reading for name in names for reading in self.readings(name) if reading.kind in kinds]

    def document(self, topic: str) -> bytes | None:
        return self.tables.documents.get(topic)

    def documents(self) -> list[tuple[str, bytes]]:
        return sorted(self.tables.documents.items())

    def peak(self, name: str) -> int:
        return self.tables.peaks.get(name, 0)

    def audit_entries(self, most: int) -> list[AuditEntry]:
        return self.tables.audit[::-1][:most]

    def _group_of(self, job_id: str) -> str | None:
        rollout = self.tables.rollouts.get(job_id)
        return None if rollout is None else rollout.group


class MemoryWork(MemoryReads):
    """The whole of `Work`."""

    def put_device(self, device: Device) -> None:
        self.put_devices([device])

    def put_devices(self, devices: Sequence[Device]) -> None:
        for device in devices:
            known = self.tables.devices.get(device.id)
            if known is None or known.group != device.group:
                highest = max(self.tables.joined.values(), default=0)
                self.tables.joined[device.id] = max(highest, self.peak("joined")) + 1
            self.tables.devices[device.id] = device

    def remove_device(self, device_id: str) -> None:
        self.tables.devices.pop(device_id, None)
        self.raise_peak("joined", self.tables.joined.pop(device_id, 0))
        for key in [key for key in self.tables.attempts if key[1] == device_id]:
            del self.tables.attempts[key]
            self.raise_peak(f"change {key[0]}", self.tables.changes.pop(key))
        for key in [key for key in self.tables.readings if key[0] == device_id]:
            del self.tables.readings[key]

    def touch_devices(self, seen: Sequence[tuple[str, float]]) -> None:
        for name, at_s in seen:
            device = self.tables.devices.get(name)
            if device is not None and (device.seen_s is None or device.seen_s < at_s):
                self.tables.devices[name] = replace(device, seen_s=at_s)

    def put_group(self, group: Group) -> None:
        self.tables.groups[group.name] = group

    def put_job(self, job: Job) -> None:
        self.tables.jobs[job.id] = job

    def put_rollout(self, rollout: Rollout) -> None:
        self.tables.rollouts[rollout.id] = rollout

    def put_attempts(self, attempts: Sequence[AttemptSeen]) -> None:
        for attempt in attempts:
            self._check_enrolled(attempt.device)
            newest = max((n for (of, _), n in self.tables.changes.items() if of == attempt.deployment), default=0)
            newest = max(newest, self.peak(f"change {attempt.deployment}"))
            self.tables.attempts[attempt.deployment, attempt.device] = attempt
            self.tables.changes[attempt.deployment, attempt.device] = newest + 1

    def put_readings(self, readings: Sequence[Reading]) -> None:
        for reading in readings:
            self._check_enrolled(reading.device)
            known = self.tables.readings.get((reading.device, reading.kind))
            if known is None or known.at_s <= reading.at_s:
                self.tables.readings[reading.device, reading.kind] = reading

    def put_document(self, topic: str, payload: bytes | None) -> None:
        if payload is None:
            self.tables.documents.pop(topic, None)
        else:
            self.tables.documents[topic] = payload

    def raise_peak(self, name: str, value: int) -> None:
        self.tables.peaks[name] = max(value, self.peak(name))

    def audit(self, entry: AuditEntry) -> None:
        self.tables.audit.append(entry)

    def _check_enrolled(self, device: str) -> None:
        if device not in self.tables.devices:
            raise PolicyError("unknown-node", f"no device {device} is enrolled")
