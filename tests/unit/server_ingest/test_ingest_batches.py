"""Rules of server/services/ingest.py (I) and server/services/ingest_reports.py (R), cited by number."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fleet_protocol.errors import TransportError
from fleet_protocol.messages import Reply
from fleet_protocol.payload import to_payload
from fleet_protocol.topics import AVAILABILITY, HEALTH, HEARTBEAT, REPLY, REPORT, STATE, TELEMETRY
from server.domain.fleet import Device
from server.domain.rollout import Policy, Rollout, Wave
from server.ports import Incoming, Reads, Work
from server.services.ingest import Ingest, IngestSettings
from server.services.ingest_metrics import IngestMetrics
from tests.fakes.reporting import FLEET, Post, ReportingDevice, attempt
from tests.fakes.store import MemoryStore, MemoryWork
from tests.fakes.waiting import until

ANSWER = to_payload(Reply(id="c-1", code=None, detail="", result={}))
ROLLOUT = Rollout(
    id="d-1",
    group="line-1",
    package="app",
    version="1.2.0",
    counter=12,
    policy=Policy(
        waves=(Wave(share_bp=10_000),),
        soak_s=0,
        failure_limit=0,
        failure_rate=0,
        silence_s=0,
        silence_limit=0,
        on_failure="recall",
        probation_s=0,
    ),
)


class FailingStore(MemoryStore):
    """Raises what `trouble` returns at each beginning, and at each put of readings what `poison` returns."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: Callable[[], Exception | None] = lambda: None
        self.poison: Callable[[list[bytes]], Exception | None] = lambda _: None
        self.begun = 0

    @contextmanager
    def begin(self) -> Iterator[Work]:
        self.begun += 1
        error = self.trouble()
        if error is not None:
            raise error
        with super().begin() as work:
            assert isinstance(work, MemoryWork)
            put = work.put_readings

            def put_readings(readings: Any) -> None:
                wrong = self.poison([each.payload for each in readings])
                if wrong is not None:
                    raise wrong
                put(readings)

            work.put_readings = put_readings  # type: ignore[method-assign]  # a trap in one transaction
            yield work


class Desk:
    """An ingest over a store in memory."""

    def __init__(self, **settings: Any) -> None:
        self.store = FailingStore()
        self.registry = CollectorRegistry()
        self.replies: list[tuple[str, bytes]] = []
        self.post = Post()
        self.ingest = Ingest(
            self.store,
            IngestSettings(fleet=FLEET, linger_s=0.001, retry_least_s=0.001, retry_most_s=0.002, **settings),
            IngestMetrics(self.registry),
            on_reply=lambda device, payload: self.replies.append((device, payload)),
        )

    def enrol(self, *devices: Device) -> None:
        with self.store.begin() as work:
            for device in devices:
                work.put_device(device)

    def run(self, *messages: Incoming) -> None:
        """Store these messages as one batch, and stop."""
        for message in messages:
            assert self.ingest.offer(message)
        self.ingest.start()
        self.ingest.stop()

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"fairlead_{name}", labels) or 0.0

    def dropped(self, kind: str, code: str) -> float:
        return self.count("ingest_dropped_total", kind=kind, code=code)

    @property
    def reads(self) -> Reads:
        with self.store.read() as reads:
            return reads

    def device(self, name: str = "node-1") -> Device:
        device = self.reads.device(name)
        assert device is not None
        return device


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def node(desk: Desk) -> ReportingDevice:
    node = ReportingDevice()
    desk.enrol(node.enrolled())
    with desk.store.begin() as work:
        work.put_rollout(ROLLOUT)
    return node


def test_i1_messages_are_acknowledged_only_after_the_commit(desk: Desk, node: ReportingDevice) -> None:
    stored_when_acknowledged: list[bool] = []
    message = desk.post.message(TELEMETRY, b'{"cpu":1}')
    spying = replace(message, ack=lambda: stored_when_acknowledged.append(bool(desk.reads.readings("node-1"))))
    desk.run(spying)
    assert stored_when_acknowledged == [True]


def test_i1_nothing_is_acknowledged_while_the_database_can_not_be_reached(desk: Desk, node: ReportingDevice) -> None:
    broken = threading.Event()
    broken.set()
    desk.store.trouble = lambda: TransportError("unreachable", "locked") if broken.is_set() else None
    desk.ingest.offer(desk.post.message(TELEMETRY, b'{"cpu":1}'))
    desk.ingest.start()
    until(lambda: desk.count("ingest_retries_total") >= 3)
    assert desk.post.acknowledged == []
    broken.clear()
    until(lambda: desk.post.acknowledged == [b'{"cpu":1}'])
    desk.ingest.stop()
    assert len(desk.reads.readings("node-1")) == 1
    assert desk.count("ingest_messages_total", kind="telemetry") == 1


def test_i1_a_stop_during_the_trouble_leaves_messages_to_the_broker(desk: Desk, node: ReportingDevice) -> None:
    desk.store.trouble = lambda: TransportError("unreachable", "locked")
    desk.run(desk.post.message(TELEMETRY, b"{}"))
    assert desk.post.acknowledged == []


def test_readings_are_kept_and_prove_life(desk: Desk, node: ReportingDevice) -> None:
    post = desk.post
    desk.run(
        post.message(TELEMETRY, b'{"n":1}', at_s=10.0),
        post.message(TELEMETRY, b'{"n":2}', at_s=11.0),
        post.message(HEALTH, b'{"verdict":"ok","checks":[]}', at_s=12.0),
        post.message(HEARTBEAT, b'{"time":1}', at_s=13.0),
        post.message(STATE, b'{"time":9}', at_s=14.0),
    )
    readings = {reading.kind: reading for reading in desk.reads.readings("node-1")}
    assert {kind: reading.payload for kind, reading in readings.items()} == {
        "telemetry": b'{"n":2}',
        "health": b'{"verdict":"ok","checks":[]}',
        "heartbeat": b'{"time":1}',
        "state": b'{"time":9}',
    }
    assert readings["telemetry"].at_s == 11.0
    assert desk.device().seen_s == 13.0
    assert len(post.acknowledged) == 5
    assert desk.count("ingest_messages_total", kind="telemetry") == 2


def test_i2_what_is_malformed_is_dropped_counted_and_acknowledged(desk: Desk, node: ReportingDevice) -> None:
    post = desk.post
    bad = [
        post.message(TELEMETRY, b"{"),
        post.message(TELEMETRY, b"[]"),
        post.message(AVAILABILITY, b"maybe"),
        post.message(REPORT, b"{}"),
        post.message(HEALTH, b"{" * 40_000),
        post.message(TELEMETRY, b"{}", device="stranger"),
        post.message(REPORT, node.report(), device="stranger"),
    ]
    desk.run(*bad, post.message(TELEMETRY, b'{"good":1}'))
    assert [reading.payload for reading in desk.reads.readings("node-1")] == [b'{"good":1}']
    assert len(post.acknowledged) == 8
    for kind, code in (
        ("telemetry", "parse"),
        ("telemetry", "schema"),
        ("availability", "schema"),
        ("report", "envelope"),
        ("health", "size"),
        ("telemetry", "unknown-node"),
        ("report", "unknown-node"),
    ):
        assert desk.dropped(kind, code) == 1, (kind, code)


def test_i2_an_unknown_topic_is_counted(desk: Desk) -> None:
    desk.ingest.refuse("schema", "not a topic")
    assert desk.dropped("unknown", "schema") == 1


def test_i2_a_cleared_topic_changes_and_counts_nothing(desk: Desk, node: ReportingDevice) -> None:
    desk.enrol(node.enrolled(available=True))
    desk.run(desk.post.message(AVAILABILITY, b""), desk.post.message(STATE, b""))
    assert desk.device() == node.enrolled(available=True)
    assert desk.post.acknowledged == [b"", b""]


def test_i3_a_message_that_breaks_the_transaction_does_not_stop_the_others(desk: Desk) -> None:
    nodes = [f"node-{number}" for number in range(20)]
    desk.enrol(*(ReportingDevice(name).enrolled() for name in nodes))
    desk.store.poison = lambda payloads: ZeroDivisionError() if b'{"n":13}' in payloads else None
    desk.run(*(desk.post.message(TELEMETRY, b'{"n":%d}' % n, device=name) for n, name in enumerate(nodes)))
    stored = {reading.payload for name in nodes for reading in desk.reads.readings(name)}
    assert stored == {b'{"n":%d}' % n for n in range(20)} - {b'{"n":13}'}
    assert len(desk.post.acknowledged) == 20
    assert desk.dropped("telemetry", "defect") == 1
    assert desk.count("ingest_messages_total", kind="telemetry") == 19


def test_i3_a_listener_that_fails_does_not_end_the_writer(desk: Desk, node: ReportingDevice) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    desk.ingest._on_reply = fail
    desk.run(desk.post.message(REPLY, ANSWER), desk.post.message(TELEMETRY, b"{}"))
    assert len(desk.reads.readings("node-1")) == 1


def test_i4_the_inbox_fills_and_then_there_is_no_room() -> None:
    desk = Desk(waiting_most=2)
    assert [desk.ingest.offer(desk.post.message(TELEMETRY, b"{}")) for _ in range(3)] == [True, True, False]
    assert desk.count("ingest_waiting_messages") == 2
    oversized = desk.post.message(TELEMETRY, bytes(10_000))
    assert desk.ingest.offer(oversized), "an oversized message takes no room"
    assert desk.post.acknowledged == [bytes(10_000)]
    assert desk.dropped("telemetry", "size") == 1


def test_i5_availability_is_remembered_and_proves_nothing(desk: Desk, node: ReportingDevice) -> None:
    desk.run(desk.post.message(AVAILABILITY, b"online"))
    assert desk.device() == node.enrolled(available=True)


def test_i5_the_last_word_of_a_batch_counts(desk: Desk, node: ReportingDevice) -> None:
    desk.run(*(desk.post.message(AVAILABILITY, word) for word in (b"online", b"offline", b"online", b"offline")))
    assert desk.device().available is False


def test_replies_are_handed_over_after_the_commit(desk: Desk, node: ReportingDevice) -> None:
    desk.run(desk.post.message(REPLY, ANSWER), desk.post.message(REPLY, ANSWER, device="stranger"))
    assert desk.replies == [("node-1", ANSWER)]
    assert desk.device().seen_s == 5_000.0


def test_r1_a_report_changes_what_is_known_of_the_device(desk: Desk, node: ReportingDevice) -> None:
    desk.run(desk.post.message(REPORT, node.report(attack="replay", attacks={"replay": 2}, attempt=attempt())))
    device = desk.device()
    assert (device.boot, device.report_counter, device.sequence, device.root) == ("b-1", 1, 57, 3)
    assert (device.stage, device.why, device.seen_s) == ("idle", "up to date", 5_000.0)
    assert device.installed[0].version == "1.2.0"
    assert (device.attack, device.attacks) == ("replay", {"replay": 2})
    seen = desk.reads.attempt("d-1", "node-1")
    assert seen is not None
    assert (seen.version, seen.outcome, seen.stage, seen.at_s) == ("1.2.0", "committed", "idle", 5_000.0)
    assert desk.count("device_attacks_total", code="replay") == 2


def test_attacks_are_counted_by_the_devices_own_counters(desk: Desk, node: ReportingDevice) -> None:
    """The second report is lost, and the third tells what it would have told; the last counter began anew."""
    counted = ({"parse": 1}, {"parse": 2}, {"parse": 3, "expired": 1}, {"parse": 3, "expired": 1}, {"parse": 1})
    reports = [node.report(attacks=each) for each in counted]
    desk.run(*(desk.post.message(REPORT, report) for report in (reports[0], *reports[2:])))
    assert desk.count("device_attacks_total", code="parse") == 4
    assert desk.count("device_attacks_total", code="expired") == 1
    assert desk.device().attacks == {"parse": 1}


def test_r1_a_report_counts_only_under_the_key_of_its_topic(desk: Desk, node: ReportingDevice) -> None:
    other = ReportingDevice("node-2")
    desk.enrol(other.enrolled())
    post = desk.post
    forged = ReportingDevice("node-1")
    desk.run(
        post.message(REPORT, node.report(), device="node-2"),
        post.message(REPORT, forged.report()),
        post.message(REPORT, node.report(device="node-2")),
        post.message(REPORT, node.report(fleet="other")),
    )
    assert desk.dropped("report", "signature") == 2
    assert desk.dropped("report", "scope") == 2
    assert desk.device() == node.enrolled()
    assert desk.device("node-2") == other.enrolled()


def test_r1_an_altered_report_changes_nothing_at_any_byte(desk: Desk, node: ReportingDevice) -> None:
    report = node.report()
    altered = [report[:at] + bytes([report[at] ^ 1]) + report[at + 1 :] for at in range(0, len(report), 7)]
    desk.run(*(desk.post.message(REPORT, each) for each in altered))
    device = desk.device()
    keyid_only = desk.count("ingest_messages_total", kind="report")
    assert keyid_only == 0
    assert device == node.enrolled()
    again = Desk()
    again.enrol(node.enrolled())
    again.run(again.post.message(REPORT, report))
    assert again.device().report_counter == 1


def test_r1_a_key_that_was_replaced_by_hand_is_not_remembered(desk: Desk, node: ReportingDevice) -> None:
    desk.ingest.offer(desk.post.message(REPORT, node.report()))
    desk.ingest.start()
    until(lambda: len(desk.post.acknowledged) == 1)
    renewed = ReportingDevice()
    desk.enrol(renewed.enrolled(report_counter=1))
    desk.ingest.offer(desk.post.message(REPORT, node.report()))
    desk.ingest.offer(desk.post.message(REPORT, renewed.report(counter=5)))
    until(lambda: len(desk.post.acknowledged) == 3)
    desk.ingest.stop()
    assert desk.device().report_counter == 5
    assert desk.dropped("report", "signature") == 1


def test_r2_a_replay_is_dropped_in_and_between_batches(desk: Desk, node: ReportingDevice) -> None:
    first, second = node.report(why="first"), node.report(why="second")
    desk.ingest.offer(desk.post.message(REPORT, first))
    desk.ingest.offer(desk.post.message(REPORT, second))
    desk.ingest.offer(desk.post.message(REPORT, first))
    desk.ingest.start()
    until(lambda: len(desk.post.acknowledged) == 3)
    desk.ingest.offer(desk.post.message(REPORT, second, at_s=9_999.0))
    desk.ingest.stop()
    assert (desk.device().why, desk.device().report_counter, desk.device().seen_s) == ("second", 2, 5_000.0)
    assert desk.dropped("report", "replay") == 2


def test_r2_a_change_of_the_boot_id_is_counted(desk: Desk, node: ReportingDevice) -> None:
    desk.run(*(desk.post.message(REPORT, node.report(boot=boot)) for boot in ("b-1", "b-1", "b-2", "b-3")))
    assert desk.count("device_reboots_total") == 2
    assert desk.device().boot == "b-3"


def test_r4_attempts_at_foreign_deployments_are_not_kept(desk: Desk, node: ReportingDevice) -> None:
    desk.run(
        desk.post.message(REPORT, node.report(attempt=attempt("d-invented"))),
        desk.post.message(REPORT, node.report(attempt=attempt(package="other"))),
    )
    assert desk.reads.attempts("d-1") == desk.reads.attempts("d-invented") == []
    assert desk.device().report_counter == 2


def test_the_newest_report_of_an_attempt_is_kept(desk: Desk, node: ReportingDevice) -> None:
    stages = [
        attempt(stage="downloading", outcome=None),
        attempt(stage="probation", outcome=None),
        attempt(stage="probation", outcome="rolled_back", code="unhealthy", detail="503"),
    ]
    desk.run(*(desk.post.message(REPORT, node.report(attempt=each)) for each in stages[:2]))
    assert desk.device().stage == "probation"
    again = Desk()
    again.enrol(desk.device())
    with again.store.begin() as work:
        work.put_rollout(ROLLOUT)
    again.run(again.post.message(REPORT, node.report(attempt=stages[2])))
    seen = again.reads.attempt("d-1", "node-1")
    assert seen is not None
    assert (seen.outcome, seen.code, seen.detail) == ("rolled_back", "unhealthy", "503")
    assert again.device().stage == "idle"


def test_a_report_without_an_attempt_leaves_the_stage(desk: Desk, node: ReportingDevice) -> None:
    desk.run(
        desk.post.message(REPORT, node.report(attempt=attempt(stage="installing", outcome=None))),
        desk.post.message(REPORT, node.report(attack="signature")),
        desk.post.message(REPORT, node.report()),
    )
    assert (desk.device().stage, desk.device().attack) == ("installing", "signature")
