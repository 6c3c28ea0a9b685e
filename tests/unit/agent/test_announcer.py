"""State, heartbeat, telemetry and health; reports on their way; commands that the resident answers itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.announcer import PROGRESS_S, Announcer
from device_agent.commands import CommandDesk
from device_agent.core.events import Commanded
from device_agent.core.record import PendingReport, Record
from device_agent.core.reports import PENDING, report
from device_agent.inbox import Inbox
from device_agent.lane import Lane
from device_agent.outbox_pump import OutboxPump
from device_agent.reporter import REPORT_TYPE, Reporter
from device_agent.settings import AgentSettings
from fleet_protocol import envelope
from fleet_protocol.messages import Health, Reply, Report
from fleet_protocol.schema import from_value
from tests.fakes.agent_ports import (
    FakeClock,
    FakeOutbox,
    FakeProbes,
    FakeService,
    FakeServices,
    FakeWorker,
    quiet_log,
)

SETTINGS = AgentSettings(device="node-1", fleet="acme", device_class="x86_64", state_dir=Path("/nonexistent"))
PREFIX = "fleet/v1/devices/node-1/"


class NotingLink:
    """A link that only notes what is handed to it."""

    def __init__(self) -> None:
        self.connected = True
        self.published: list[tuple[str, bytes, int, bool]] = []
        self.sent: list[Any] = []

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, sent: Any = None) -> None:
        self.published.append((topic.removeprefix(PREFIX), payload, qos, retain))
        self.sent.append(sent)

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def subscribe(self, filters: tuple[str, ...]) -> None: ...
    def unsubscribe(self, filters: tuple[str, ...]) -> None: ...

    def take(self) -> list[str]:
        names = [name for name, *_ in self.published]
        self.published.clear()
        return names


class World:
    def __init__(self) -> None:
        self.link, self.clock, self.probes = NotingLink(), FakeClock(), FakeProbes()
        clock: Any = self.clock
        self.announcer = Announcer(SETTINGS, self.link, self.probes, clock, quiet_log())


@pytest.fixture
def world() -> World:
    return World()


def test_everything_is_said_at_connect(world: World) -> None:
    world.announcer.connected(Record())
    said = {name: (json.loads(payload), qos, retain) for name, payload, qos, retain in world.link.published}
    assert said.keys() == {"heartbeat", "telemetry", "health", "state"}
    assert said["state"][1:] == (1, True)
    assert said["state"][0]["stage"] == "idle"
    assert said["heartbeat"][1:] == (0, False)
    assert all(isinstance(value, (int, float)) for value in said["telemetry"][0].values())
    assert said["health"][0]["verdict"] == "ok"
    assert from_value(Health, said["health"][0]).checks[0].name == "cpu"


def test_rule_1_state_when_it_changes(world: World) -> None:
    world.announcer.connected(Record())
    world.link.take()
    world.announcer.tend(Record())
    assert world.link.take() == []
    world.announcer.tend(Record(why="held"))
    assert world.link.take() == ["state"]
    world.announcer.note_attack("replay")
    world.announcer.tend(Record(why="held", attacks={"replay": 1}))
    assert json.loads(world.link.published[0][1])["attack"] == "replay"


def test_rule_1_progress_now_and_then(world: World) -> None:
    record = Record(stage="downloading")
    world.announcer.connected(record)
    world.link.take()
    for share in (0.1, 0.2, 0.3):
        world.announcer.progress(share)
        world.announcer.tend(record)
    assert world.link.take() == []
    due_s = world.announcer.wake_s()
    assert due_s == world.clock.now_s + PROGRESS_S
    world.clock.now_s = due_s
    world.announcer.tend(record)
    assert json.loads(world.link.published[0][1])["progress"] == 0.3


def test_rule_2_nothing_without_a_connection(world: World) -> None:
    world.link.connected = False
    world.announcer.tend(Record())
    assert world.link.take() == []
    assert world.announcer.wake_s() is None


def test_rule_3_one_awakening_for_all(world: World) -> None:
    world.announcer.connected(Record())
    world.link.take()
    wakes = 0
    for _ in range(10):
        due_s = world.announcer.wake_s()
        assert due_s is not None
        world.clock.now_s = due_s
        world.announcer.tend(Record())
        wakes += 1
        assert sorted(world.link.take()) == ["health", "heartbeat", "telemetry"]
    assert world.clock.now_s == 1_000 + wakes * 60


def test_readings_that_fail_do_not_stop_the_heartbeat(world: World) -> None:
    world.probes.results = []
    world.announcer.connected(Record())
    assert world.link.take() == ["heartbeat", "telemetry", "state"]


class Reports:
    def __init__(self) -> None:
        self.link, self.clock, self.worker = NotingLink(), FakeClock(), FakeWorker()
        self.outbox, self.inbox, self.queued = FakeOutbox(), Inbox(), list[int]()
        self.record = Record(attacks={"parse": 1}, why="held")
        clock: Any = self.clock
        self.pump = OutboxPump("report", self.outbox, self.link, self.inbox, quiet_log())
        lane = Lane(self.worker, self.inbox)
        self.reporter = Reporter(
            SETTINGS, lane, self.pump, boot="b-1", queued=self.queued.append, clock=clock, log=quiet_log()
        )

    def add(self, counter: int) -> None:
        pending = PendingReport(counter=counter, wall_s=1_763_900_000.0, attempt=None, attack="parse")
        self.record = replace(self.record, pending=(*self.record.pending, pending))
        self.reporter.add(pending)

    def turn(self) -> None:
        while (happening := self.inbox.take(0.0)) is not None:
            happening()
        self.reporter.tend(self.record)
        self.pump.tend()


def test_reports_are_signed_queued_and_sent_in_order() -> None:
    reports = Reports()
    for counter in (1, 2, 2):
        reports.add(counter)
    reports.turn()
    payload = dict(reports.worker.orders[0].args["payload"])
    assert payload.pop("_type") == Report.TYPE
    assert payload.pop("v") == 1
    assert from_value(Report, payload).attack == "parse"
    reports.worker.answer("sign", {"envelope": "{1}"})
    reports.turn()
    reports.worker.answer("sign", {"envelope": "{2}"})
    reports.turn()
    assert reports.queued == [1, 2]
    assert not reports.worker.orders
    assert [payload for _, payload, *_ in reports.link.published] == [b"{1}", b"{2}"]
    reports.turn()
    assert len(reports.link.published) == 2
    for sent in reports.link.sent:
        sent()
    reports.turn()
    assert reports.outbox.kept == {}


def test_reports_made_offline_go_out_in_order() -> None:
    reports = Reports()
    reports.link.connected = False
    for counter in range(1, 41):
        reports.pump.put(counter, b"%d" % counter)
    reports.turn()
    assert reports.link.published == []
    reports.link.connected = True
    while reports.outbox.kept:
        reports.turn()
        assert len(reports.outbox.kept) <= 40
        for sent in reports.link.sent:
            sent()
        reports.link.sent.clear()
        reports.turn()
    assert [payload for _, payload, *_ in reports.link.published] == [b"%d" % counter for counter in range(1, 41)]


def test_signing_that_fails_is_tried_again_later() -> None:
    reports = Reports()
    reports.add(1)
    reports.turn()
    reports.worker.refuse("sign", "worker")
    reports.turn()
    assert not reports.worker.orders
    wake_s = reports.reporter.wake_s()
    assert wake_s is not None
    reports.clock.now_s = wake_s
    reports.turn()
    assert reports.worker.orders


def test_what_the_record_drops_is_not_signed() -> None:
    """A key that can not sign for weeks costs no more memory than the record."""
    reports = Reports()
    for _ in range(3 * PENDING):
        reports.record, effects = report(reports.record, reports.clock.moment(), attack="parse")
        for effect in effects:
            reports.reporter.add(effect.report)  # type: ignore[union-attr]
        reports.turn()
    waiting = [pending.counter for pending in reports.record.pending]
    assert len(waiting) == PENDING
    while reports.worker.orders:
        reports.worker.answer("sign", {"envelope": "{}"})
        reports.turn()
    assert reports.queued == [1, *waiting], "the first was being signed"


def test_the_report_type_is_the_protocols() -> None:
    assert REPORT_TYPE == envelope.REPORT_TYPE


class Desk:
    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.events: list[Commanded] = []
        self.services = FakeServices([FakeService("web")], [f"line {n}" for n in range(300)])
        clock: Any = FakeClock()
        health = Health(time=0.0, verdict="ok", checks=())
        self.desk = CommandDesk(
            self.services, lambda: health, event=self._event, reply=self.replies.append, clock=clock
        )

    def _event(self, event: Commanded) -> bool:
        self.events.append(event)
        return True

    def take(self, name: str, **more: Any) -> None:
        self.desk.take({"id": "c1", "name": name, "package": None, "service": None, "lines": 0} | more)


def test_commands() -> None:
    desk = Desk()
    desk.take("rollback", package="web")
    assert (desk.events[0].name, desk.events[0].package) == ("rollback", "web")
    desk.take("check-health")
    desk.take("list-services")
    desk.take("fetch-logs", service="web", lines=2)
    desk.take("fetch-logs", service="other")
    results = [reply.result for reply in desk.replies]
    assert results[0] == {"time": 0.0, "verdict": "ok", "checks": []}
    row = {"name": "web", "running": True, "pid": 4711, "restarts": 0, "version": "1.0.0"}
    assert results[1] == {"services": [row]}
    assert results[2] == {"service": "web", "lines": ["line 298", "line 299"]}
    assert [reply.code for reply in desk.replies] == [None, None, None, "unknown-service"]


def test_logs_fit_into_a_reply() -> None:
    desk = Desk()
    desk.services.lines = ["\x00" * 2_000] * 300
    desk.take("fetch-logs", service="web", lines=300)
    assert 0 < len(desk.replies[0].result["lines"]) < 300


def test_a_download_is_not_progress_of_another_stage(world: World) -> None:
    world.announcer.progress(0.5)
    assert world.announcer.state(replace(Record(), stage="installing")).progress is None
