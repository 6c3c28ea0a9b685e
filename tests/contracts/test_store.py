"""What every `Store` promises, run on the twin in memory, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_protocol.errors import PolicyError
from fleet_protocol.manifest import Fallback, Source, Target, Window
from fleet_protocol.messages import Installed
from server.adapters.sql.store import SqlStore
from server.domain.fleet import AttemptSeen, AuditEntry, Device, Group
from server.domain.job import Job
from server.domain.rollout import Policy, Rollout, RolloutState, Wave
from server.ports import Member, Reading, Store
from tests.fakes.postgres import fresh_database, postgres
from tests.fakes.store import MemoryStore


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "postgresql":
        with fresh_database(request.getfixturevalue("server")) as url:
            yield from _closing(SqlStore(url))
    elif request.param == "sqlite":
        yield from _closing(SqlStore(f"sqlite:///{tmp_path}/fairlead.db"))
    else:
        yield from _closing(MemoryStore())


def _closing(store: Store) -> Iterator[Store]:
    try:
        yield store
    finally:
        store.close()


def device(name: str = "node-1", group: str = "line-1", **changes: object) -> Device:
    plain = Device(
        id=name,
        group=group,
        device_class="x86_64",
        key_id="ab" * 32,
        public_key={"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00" * 32}},
        enrolled_s=1_000.5,
    )
    return replace(plain, **changes)


FULL = device(
    seen_s=1_700_000_000.123456,
    available=True,
    boot="b-1",
    report_counter=2**53 - 1,
    sequence=57,
    root=3,
    stage="probation",
    why="bucket 6100 >= share 500 – später",
    installed=(Installed(package="app", version="1.2.0", counter=12, deployment="d-1"),),
    attack="replay",
    attacks={"replay": 3, "signature": 1},
)

TARGET = Target(path="app/1.2.0/x.tar.zst", length=2**41, sha256="ab" * 32)
JOB = Job(
    id="d-1",
    update_type="service",
    description="a 'quoted' description\nof two lines",
    targets=(TARGET,),
    sources=(Source(sha256="ab" * 32, url="https://example.org/x?a=%20&b=:c"),),
    salt="6f2c9e01",
    fallback=Fallback(version="1.1.0", counter=11, targets=(TARGET,)),
    not_before="2026-11-23T06:00:00Z",
    window=Window(start_min=60, end_min=120),
    created_s=5.25,
    created_by="operator",
)
ROLLOUT = Rollout(
    id="d-1",
    group="line-1",
    package="app",
    version="1.2.0",
    counter=12,
    policy=Policy(
        waves=(Wave(share_bp=500, devices=("node-1", "node-2")), Wave(share_bp=10_000)),
        soak_s=60.5,
        failure_limit=1,
        failure_rate=0.05,
        silence_s=300,
        silence_limit=2,
        on_failure="recall",
        probation_s=60,
    ),
    wave=0,
    wave_opened_s=7.5,
    advance=True,
    reason="why",
)


def attempt(name: str = "node-1", deployment: str = "d-1", **changes: object) -> AttemptSeen:
    plain = AttemptSeen(
        deployment=deployment,
        device=name,
        version="1.2.0",
        number=1,
        stage="downloading",
        outcome=None,
        code=None,
        detail="",
        at_s=10.0,
    )
    return replace(plain, **changes)


def reading(at_s: float, payload: bytes, *, kind: str = "telemetry", name: str = "node-1") -> Reading:
    return Reading(device=name, kind=kind, at_s=at_s, payload=payload)


def test_a_new_store_is_empty(store: Store) -> None:
    with store.read() as reads:
        assert reads.devices() == reads.groups() == reads.jobs() == reads.rollouts() == reads.documents() == []
        assert reads.device("node-1") is reads.group("line-1") is reads.job("d-1") is reads.rollout("d-1") is None
        assert reads.attempts("d-1") == reads.readings("node-1") == reads.audit_entries(10) == []
        assert reads.document("fleet/v1/trust/timestamp") is None
        assert reads.roster_stamp("line-1") == reads.device_counts() == (0, 0)
        assert reads.moving() == reads.group_names() == reads.standing_jobs("line-1") == []
        assert reads.rollout_counts() == {}


@pytest.mark.parametrize("value", [device(), FULL], ids=["plain", "full"])
def test_a_device_comes_back_as_it_was_put(store: Store, value: Device) -> None:
    with store.begin() as work:
        work.put_device(value)
        assert work.device("node-1") == value
    with store.read() as reads:
        assert reads.device("node-1") == value
        assert reads.devices() == [value]


def test_putting_a_device_again_replaces_it(store: Store) -> None:
    with store.begin() as work:
        work.put_device(FULL)
        work.put_device(device())
        assert work.devices() == [device()]


def test_devices_are_listed_by_id_and_group(store: Store) -> None:
    with store.begin() as work:
        work.put_devices([device("node-2"), device("node-1"), device("node-3", "line-2")])
        work.put_devices([])
    with store.read() as reads:
        assert [each.id for each in reads.devices()] == ["node-1", "node-2", "node-3"]
        assert [each.id for each in reads.devices("line-1")] == ["node-1", "node-2"]
        assert reads.devices("nowhere") == []


def test_questions_about_many_devices_ignore_the_unknown(store: Store) -> None:
    names = [f"node-{number:04}" for number in range(1_500)]
    with store.begin() as work:
        work.put_devices([device(name) for name in names])
    with store.read() as reads:
        assert reads.enrolled([*names, "stranger", names[0]]) == set(names)
        assert reads.devices_by_id(["stranger", names[7]]) == {names[7]: device(names[7])}
        assert len(reads.devices_by_id(names)) == 1_500
        assert reads.enrolled([]) == set()
        assert reads.devices_by_id([]) == {}


def test_touching_raises_seen_and_never_lowers_it(store: Store) -> None:
    with store.begin() as work:
        work.put_devices([device("node-1"), device("node-2", seen_s=50.0)])
        work.touch_devices([("node-1", 20.0), ("node-2", 20.0), ("stranger", 20.0), ("node-1", 30.0), ("node-1", 25.0)])
        work.touch_devices([])
    with store.read() as reads:
        assert {each.id: each.seen_s for each in reads.devices()} == {"node-1": 30.0, "node-2": 50.0}


def test_a_roster_names_every_device_of_the_group_with_its_class(store: Store) -> None:
    with store.begin() as work:
        work.put_devices([device("node-2", device_class="armv7"), device("node-1"), device("node-3", "line-2")])
        assert work.roster("line-1") == [Member("node-1", "x86_64"), Member("node-2", "armv7")]


def test_a_roster_stamp_changes_with_every_joining_and_leaving(store: Store) -> None:
    stamps = []
    for change in (
        [device("node-1"), device("node-2"), device("node-3", "line-2")],
        [device("node-2", "line-2")],
        [device("node-3", "line-1")],
        [device("node-3", "line-2"), device("node-2", "line-1")],
    ):
        with store.begin() as work:
            work.put_devices(change)
        with store.read() as reads:
            stamps.append(reads.roster_stamp("line-1"))
    assert len(set(stamps)) == 4


def test_a_roster_stamp_stays_when_nobody_joins_or_leaves(store: Store) -> None:
    with store.begin() as work:
        work.put_devices([device("node-1"), device("node-2")])
        before = work.roster_stamp("line-1")
        work.put_device(device("node-1", seen_s=9.0))
        work.touch_devices([("node-2", 9.0)])
        work.put_device(device("node-3", "line-2"))
        assert work.roster_stamp("line-1") == before


def test_the_unheard_are_those_not_seen_since(store: Store) -> None:
    with store.begin() as work:
        work.put_devices([device("node-1"), device("node-2", seen_s=50.0), device("node-3", seen_s=49.9)])
        work.put_device(device("node-4", "line-2"))
        assert work.unheard("line-1", 50.0) == ["node-1", "node-3"]


def test_groups_come_back(store: Store) -> None:
    with store.begin() as work:
        work.put_group(Group(name="line-2"))
        work.put_group(Group(name="line-1", sequence=3, issued_s=12.5))
        work.put_group(Group(name="line-2", sequence=2**53 - 1))
    with store.read() as reads:
        assert reads.groups() == [
            Group(name="line-1", sequence=3, issued_s=12.5),
            Group(name="line-2", sequence=2**53 - 1),
        ]
        assert reads.group("line-1") == Group(name="line-1", sequence=3, issued_s=12.5)


def test_a_job_comes_back_as_it_was_put(store: Store) -> None:
    bare = replace(JOB, id="d-2", sources=(), fallback=None, not_before=None, window=None, superseded=True)
    with store.begin() as work:
        work.put_job(JOB)
        work.put_job(bare)
    with store.read() as reads:
        assert reads.job("d-1") == JOB
        assert reads.jobs() == [JOB, bare]


def test_jobs_of_a_group_are_those_of_its_rollouts(store: Store) -> None:
    with store.begin() as work:
        for name, group in (("d-1", "line-1"), ("d-2", "line-2")):
            work.put_job(replace(JOB, id=name))
            work.put_rollout(replace(ROLLOUT, id=name, group=group))
    with store.read() as reads:
        assert [job.id for job in reads.jobs("line-2")] == ["d-2"]


def test_rollouts_come_back_and_are_found_by_group_and_state(store: Store) -> None:
    held = replace(ROLLOUT, id="d-2", state=RolloutState.HELD, excused_failures=2, excused_silent=1)
    other = replace(ROLLOUT, id="d-3", group="line-2", wave=-1, wave_opened_s=None, advance=False)
    with store.begin() as work:
        for rollout in (other, held, replace(ROLLOUT, reason="old"), ROLLOUT):
            work.put_rollout(rollout)
    with store.read() as reads:
        assert reads.rollout("d-1") == ROLLOUT
        assert reads.rollouts() == [ROLLOUT, held, other]
        assert reads.rollouts("line-1") == [ROLLOUT, held]
        assert reads.rollouts(state=RolloutState.ACTIVE) == [ROLLOUT, other]
        assert reads.rollouts("line-1", RolloutState.HELD) == [held]
        assert isinstance(reads.rollouts()[0].state, RolloutState)


def test_ids_and_counts_are_read_without_their_rows(store: Store) -> None:
    states = {"d-1": RolloutState.HELD, "d-2": RolloutState.COMPLETE, "d-3": RolloutState.ACTIVE, "d-4": "recalled"}
    with store.begin() as work:
        work.put_devices([device("node-1", available=True), device("node-2"), device("node-3", "line-2")])
        work.put_group(Group(name="line-2"))
        work.put_group(Group(name="line-1"))
        for number, (name, state) in enumerate(reversed(states.items())):
            work.put_job(replace(JOB, id=name, created_s=float(number), superseded=name == "d-2"))
            work.put_rollout(replace(ROLLOUT, id=name, state=RolloutState(state)))
        work.put_rollout(replace(ROLLOUT, id="d-5", group="line-2"))
        work.put_job(replace(JOB, id="d-6"))
    with store.read() as reads:
        assert reads.device_counts() == (3, 1)
        assert reads.group_names() == ["line-1", "line-2"]
        assert reads.moving() == ["d-1", "d-3", "d-5"]
        assert reads.rollout_counts() == {"held": 1, "complete": 1, "active": 2, "recalled": 1}
        assert reads.standing_jobs("line-1") == ["d-4", "d-3", "d-1"]
        assert reads.standing_jobs("line-2") == []


def test_attempts_are_kept_by_deployment_and_device(store: Store) -> None:
    done = attempt(outcome="rolled_back", stage="idle", code="unhealthy", detail="503", number=2, at_s=20.0)
    with store.begin() as work:
        work.put_devices([device("node-1"), device("node-2")])
        work.put_attempts([attempt("node-2"), attempt(), attempt(deployment="d-2")])
        work.put_attempts([done])
        work.put_attempts([])
    with store.read() as reads:
        assert reads.attempt("d-1", "node-1") == done
        assert reads.attempt("d-1", "node-3") is None
        assert reads.attempts("d-1") == [done, attempt("node-2")]


def test_votes_are_told_by_their_changes(store: Store) -> None:
    with store.begin() as work:
        work.put_devices([device("node-1"), device("node-2")])
        work.put_attempts([attempt(), attempt("node-2"), attempt(deployment="d-2")])
    with store.begin() as work:
        before = work.votes("d-1")
        plain = ("1.2.0", None, None, 10.0)
        assert [vote[:5] for vote in before] == [("node-1", *plain), ("node-2", *plain)]
        assert work.votes("d-1", before[-1].change) == []
        done = attempt(outcome="rolled_back", code="withdrawn", at_s=20.0)
        work.put_attempts([done, attempt("node-2", deployment="d-2")])
        after = work.votes("d-1", before[-1].change)
        assert [vote[:5] for vote in after] == [("node-1", "1.2.0", "rolled_back", "withdrawn", 20.0)]
        assert work.votes("d-1") == [before[1], *after]
        assert work.votes("d-3") == []


def test_the_newest_reading_of_each_kind_is_kept(store: Store) -> None:
    with store.begin() as work:
        work.put_device(device())
        work.put_readings([reading(2.0, b'{"new":1}'), reading(1.0, b"{}", kind="health"), reading(1.0, b'{"old":1}')])
    with store.begin() as work:
        work.put_readings([reading(1.5, b'{"late":1}'), reading(1.0, b'{"same time":\xff}', kind="health")])
        work.put_readings([])
    with store.read() as reads:
        assert reads.readings("node-1") == [
            reading(1.0, b'{"same time":\xff}', kind="health"),
            reading(2.0, b'{"new":1}'),
        ]


def test_the_readings_of_many_devices_are_one_question(store: Store) -> None:
    with store.begin() as work:
        work.put_devices([device("node-1"), device("node-2"), device("node-3", "line-2")])
        for name in ("node-1", "node-2", "node-3"):
            work.put_readings([reading(1.0, b"{}", kind=kind, name=name) for kind in ("health", "state", "telemetry")])
    with store.read() as reads:
        found = [(each.device, each.kind) for each in reads.readings_of(None, {"health", "telemetry"})]
        assert found == [(f"node-{number}", kind) for number in (1, 2, 3) for kind in ("health", "telemetry")]
        assert [each.device for each in reads.readings_of("line-2", ["state"])] == ["node-3"]
        assert reads.readings_of("nowhere", ["state"]) == reads.readings_of(None, []) == []


def test_of_a_removed_device_nothing_is_left(store: Store) -> None:
    with store.begin() as work:
        work.put_devices([device("node-1"), device("node-2")])
        work.put_attempts([attempt("node-1"), attempt("node-2")])
        work.put_readings([reading(1.0, b"{}"), reading(1.0, b"{}", name="node-2")])
        work.remove_device("node-1")
        work.remove_device("stranger")
    with store.read() as reads:
        assert [each.id for each in reads.devices()] == ["node-2"]
        assert reads.readings("node-1") == []
        assert [each.device for each in reads.attempts("d-1")] == ["node-2"]


def test_a_roster_stamp_is_never_told_again_for_another_roster(store: Store) -> None:
    """The device that joined last is removed, and another takes its place: even where nobody was left."""
    stamps = []
    for names in (["node-1"], ["node-2"], ["node-1", "node-2"], ["node-1", "node-3"], ["node-1", "node-2"]):
        with store.begin() as work:
            for known in work.devices("line-1"):
                if known.id not in names:
                    work.remove_device(known.id)
            work.put_devices([device(name) for name in names])
        with store.read() as reads:
            stamps.append(reads.roster_stamp("line-1"))
    assert len(set(stamps)) == 5


def test_the_change_of_a_vote_is_never_told_again_for_another_vote(store: Store) -> None:
    """Whoever has counted up to the removed device's vote still hears of the next one."""
    with store.begin() as work:
        work.put_devices([device("node-1"), device("node-2", "line-2")])
        work.put_attempts([attempt("node-1"), attempt("node-2")])
    with store.begin() as work:
        newest = work.votes("d-1")[-1].change
        work.remove_device("node-2")
        work.put_attempts([attempt("node-1", outcome="failed", code="io")])
        assert [vote.device for vote in work.votes("d-1", newest)] == ["node-1"]


def test_a_peak_only_rises(store: Store) -> None:
    topic = "fleet/v1/groups/line-1/manifest"
    seen = []
    for value in (7, 3, 2**53 - 1, 8):
        with store.begin() as work:
            work.raise_peak(topic, value)
        with store.read() as reads:
            seen.append((reads.peak(topic), reads.peak("other")))
    assert seen == [(7, 0), (7, 0), (2**53 - 1, 0), (2**53 - 1, 0)]


def test_nothing_is_kept_of_devices_that_are_not_enrolled(store: Store) -> None:
    with store.begin() as work:
        work.put_device(device())
    for put in (
        lambda work: work.put_readings([reading(1.0, b"{}"), reading(1.0, b"{}", name="stranger")]),
        lambda work: work.put_attempts([attempt(), attempt("stranger")]),
    ):
        with pytest.raises(PolicyError) as caught, store.begin() as work:
            put(work)
        assert caught.value.code == "unknown-node"
    with store.read() as reads:
        assert reads.readings("node-1") == []
        assert reads.attempts("d-1") == []


def test_documents_hold_the_newest_bytes_of_each_topic(store: Store) -> None:
    with store.begin() as work:
        work.put_document("fleet/v1/trust/timestamp", b"\x00\xff old")
        work.put_document("fleet/v1/groups/line-1/manifest", b"manifest")
        work.put_document("fleet/v1/trust/timestamp", b"\x00\xff new")
        work.put_document("fleet/v1/trust/root/1", b"root")
        work.put_document("fleet/v1/trust/root/1", None)
        work.put_document("fleet/v1/trust/root/2", None)
    with store.read() as reads:
        assert reads.documents() == [
            ("fleet/v1/groups/line-1/manifest", b"manifest"),
            ("fleet/v1/trust/timestamp", b"\x00\xff new"),
        ]
        assert reads.document("fleet/v1/trust/timestamp") == b"\x00\xff new"
        assert reads.document("fleet/v1/trust/root/1") is None


def test_the_audit_log_is_read_newest_first(store: Store) -> None:
    entries = [AuditEntry(at_s=n, who="operator", verb="hold", subject="d-1", detail=f"{n}") for n in (3.0, 1.0, 2.0)]
    for entry in entries:
        with store.begin() as work:
            work.audit(entry)
    with store.read() as reads:
        assert reads.audit_entries(2) == [entries[2], entries[1]]
        assert len(reads.audit_entries(100)) == 3


def test_a_block_that_raises_leaves_nothing_behind(store: Store) -> None:
    with store.begin() as work:
        work.put_device(device())
    with pytest.raises(ZeroDivisionError), store.begin() as work:
        work.put_device(FULL)
        work.put_group(Group(name="line-1"))
        work.put_document("t", b"x")
        work.audit(AuditEntry(at_s=1.0, who="w", verb="v", subject="s", detail="d"))
        raise ZeroDivisionError
    with store.begin() as work:
        assert work.device("node-1") == device()
        assert work.groups() == work.documents() == work.audit_entries(1) == []


def test_a_reader_sees_what_was_committed_and_never_waits_for_a_writer(store: Store) -> None:
    with store.begin() as work:
        work.put_device(device())
    with store.begin() as work:
        work.put_device(FULL)
        with store.read() as reads:
            assert reads.device("node-1") == device()
    with store.read() as reads:
        assert reads.device("node-1") == FULL


def test_a_reader_sees_one_moment_for_as_long_as_it_reads(store: Store) -> None:
    with store.begin() as work:
        work.put_device(device())
    with store.read() as reads:
        assert len(reads.devices()) == 1
        with store.begin() as work:
            work.put_device(device("node-2"))
        assert len(reads.devices()) == 1


def test_writers_of_many_threads_happen_one_after_another(store: Store) -> None:
    with store.begin() as work:
        work.put_group(Group(name="line-1"))

    def count_up(_: int) -> None:
        for _ in range(10):
            with store.begin() as work:
                group = work.group("line-1")
                assert group is not None
                work.put_group(replace(group, sequence=group.sequence + 1))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count_up, range(4)))
    with store.read() as reads:
        assert reads.groups() == [Group(name="line-1", sequence=40)]


def test_a_transaction_within_a_transaction_is_refused_and_not_a_deadlock(store: Store) -> None:
    with pytest.raises(RuntimeError), store.begin(), store.begin():
        pass
    with store.begin() as work:
        work.put_group(Group(name="line-1"))
