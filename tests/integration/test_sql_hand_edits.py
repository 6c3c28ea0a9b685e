"""Rows that somebody edited by hand: an error that names the row, never a crash, and the other rows are read."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fleet_protocol.errors import PolicyError
from fleet_protocol.manifest import Target
from fleet_protocol.topics import AVAILABILITY, REPORT, TELEMETRY
from server.adapters.sql.store import SqlStore
from server.domain.fleet import AttemptSeen, AuditEntry, Group
from server.domain.job import Job
from server.domain.rollout import Policy, Rollout, Wave
from server.ports import Reading, Reads
from server.services.ingest import Ingest, IngestSettings
from server.services.ingest_metrics import IngestMetrics
from tests.fakes.reporting import FLEET, Post, ReportingDevice
from tests.fakes.waiting import until


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = SqlStore(f"sqlite:///{tmp_path}/fairlead.db")
    policy = Policy(
        waves=(Wave(share_bp=10_000),),
        soak_s=0,
        failure_limit=0,
        failure_rate=0,
        silence_s=0,
        silence_limit=0,
        on_failure="recall",
        probation_s=0,
    )
    job = Job(
        id="d-1",
        update_type="service",
        description="",
        targets=(Target(path="a/1", length=1, sha256="ab" * 32),),
        sources=(),
        salt="6f2c9e01",
        fallback=None,
        not_before=None,
        window=None,
        created_s=1.0,
        created_by="operator",
    )
    seen = AttemptSeen(
        deployment="d-1",
        device="node-1",
        version="1.0.0",
        number=1,
        stage="idle",
        outcome="committed",
        code=None,
        detail="",
        at_s=1.0,
    )
    with store.begin() as work:
        work.put_device(ReportingDevice().enrolled())
        work.put_group(Group(name="line-1"))
        work.put_job(job)
        work.put_rollout(Rollout(id="d-1", group="line-1", package="a", version="1.0.0", counter=1, policy=policy))
        work.put_attempts([seen])
        work.put_readings([Reading(device="node-1", kind="state", at_s=1.0, payload=b"{}")])
        work.put_document("topic", b"payload")
        work.audit(AuditEntry(at_s=1.0, who="operator", verb="hold", subject="d-1", detail=""))
    yield store
    store.close()


def edit(tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / "fairlead.db")) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "ask", "named"),
    [
        (
            "UPDATE devices SET installed = '{'",
            lambda r: r.device("node-1"),
            "table devices, row id 'node-1': installed",
        ),
        ("UPDATE devices SET installed = '[{}]'", lambda r: r.devices(), "row id 'node-1': installed.0"),
        ("UPDATE devices SET attacks = '[]'", lambda r: r.devices(), "attacks"),
        ("UPDATE devices SET public_key = x'00ff'", lambda r: r.devices(), "public_key: not a text"),
        ("UPDATE devices SET stage = 'flying'", lambda r: r.devices_by_id(["node-1"]), "stage"),
        ("UPDATE devices SET available = 'perhaps'", lambda r: r.devices(), "available"),
        ("UPDATE devices SET report_counter = 'many'", lambda r: r.devices(), "report_counter"),
        ("UPDATE devices SET why = x'ff'", lambda r: r.device("node-1"), "row id 'node-1': why"),
        ("UPDATE device_groups SET sequence = 1.5", lambda r: r.groups(), "table device_groups, row name 'line-1'"),
        ('UPDATE jobs SET targets = \'[{"path":"../x"}]\'', lambda r: r.jobs(), "table jobs, row id 'd-1': targets"),
        ("UPDATE jobs SET update_type = 'magic'", lambda r: r.job("d-1"), "update_type"),
        ("UPDATE rollouts SET policy = 'null'", lambda r: r.rollouts(), "table rollouts, row id 'd-1': policy"),
        (
            "UPDATE rollouts SET policy = replace(policy, '10000', '10001')",
            lambda r: r.rollout("d-1"),
            "share lies between",
        ),
        ("UPDATE rollouts SET state = 'odd'", lambda r: r.rollouts("line-1"), "state"),
        ("UPDATE rollouts SET wave = 'x'", lambda r: r.rollout("d-1"), "wave"),
        (
            "UPDATE attempts SET outcome = 'fine'",
            lambda r: r.votes("d-1"),
            "table attempts, row deployment 'd-1', device 'node-1'",
        ),
        ("UPDATE attempts SET stage = ''", lambda r: r.attempts("d-1"), "stage"),
        ("UPDATE readings SET at_s = 'soon'", lambda r: r.readings("node-1"), "row device 'node-1', kind 'state'"),
        ("UPDATE documents SET payload = 7", lambda r: r.documents(), "table documents, row topic 'topic'"),
        ("UPDATE documents SET payload = 7", lambda r: r.document("topic"), "payload"),
        ("UPDATE audit SET at_s = 'then'", lambda r: r.audit_entries(1), "table audit"),
        ("UPDATE devices SET why = CAST(x'ff' AS TEXT)", lambda r: r.devices(), "why"),
    ],
)
def test_the_error_names_the_row(
    store: SqlStore, tmp_path: Path, statement: str, ask: Callable[[Reads], object], named: str
) -> None:
    edit(tmp_path, statement)
    with pytest.raises(PolicyError) as caught, store.read() as reads:
        ask(reads)
    assert caught.value.code == "database"
    assert named in caught.value.detail
    assert "\n" not in str(caught.value)


def test_a_damaged_file_loses_no_message(store: SqlStore, tmp_path: Path) -> None:
    """What can not be stored is left to the broker; it is not dropped as if the message were to blame."""
    post, registry = Post(), CollectorRegistry()
    ingest = Ingest(
        store, IngestSettings(fleet=FLEET, retry_most_s=0.01), IngestMetrics(registry), on_reply=lambda *_: None
    )
    store._writing.dispose()
    store._reading.dispose()
    for name in ("fairlead.db-wal", "fairlead.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "fairlead.db").write_bytes(b"no database any more\n" * 1_000)
    assert ingest.offer(post.message(TELEMETRY, b"{}"))
    ingest.start()
    until(lambda: (registry.get_sample_value("fairlead_ingest_retries_total") or 0) > 2)
    ingest.stop()
    assert post.acknowledged == []


def test_the_other_rows_are_read_as_ever(store: SqlStore, tmp_path: Path) -> None:
    with store.begin() as work:
        work.put_device(ReportingDevice("node-2").enrolled())
    edit(tmp_path, "UPDATE devices SET installed = '{' WHERE id = 'node-1'")
    with store.read() as reads:
        assert reads.device("node-2") is not None
        assert reads.enrolled(["node-1", "node-2"]) == {"node-1", "node-2"}
        assert [member.device for member in reads.roster("line-1")] == ["node-1", "node-2"]


def test_the_ingest_goes_on_beside_a_row_that_can_not_be_read(store: SqlStore, tmp_path: Path) -> None:
    broken, well, post, registry = ReportingDevice("node-1"), ReportingDevice("node-2"), Post(), CollectorRegistry()
    with store.begin() as work:
        work.put_device(well.enrolled())
    edit(tmp_path, "UPDATE devices SET installed = '{' WHERE id = 'node-1'")
    ingest = Ingest(store, IngestSettings(fleet=FLEET), IngestMetrics(registry), on_reply=lambda *_: None)
    for message in (
        post.message(TELEMETRY, b'{"n":1}', device="node-1"),
        post.message(REPORT, broken.report(), device="node-1"),
        post.message(AVAILABILITY, b"online", device="node-1"),
        post.message(REPORT, well.report(), device="node-2"),
        post.message(AVAILABILITY, b"online", device="node-2"),
    ):
        assert ingest.offer(message)
    ingest.start()
    ingest.stop()
    with store.read() as reads:
        device = reads.device("node-2")
        assert device is not None
        assert (device.report_counter, device.available) == (1, True)
        assert b'{"n":1}' in [reading.payload for reading in reads.readings("node-1")]
    assert len(post.acknowledged) == 5
    for kind in ("report", "availability"):
        labels = {"kind": kind, "code": "database"}
        assert registry.get_sample_value("fairlead_ingest_dropped_total", labels) == 1
