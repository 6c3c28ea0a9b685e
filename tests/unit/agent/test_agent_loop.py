"""The loop with the real machine and a world in memory: happenings in, effects out, nothing polled."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.agent import Agent, Ports
from device_agent.core.codec import to_json
from device_agent.core.machine import step
from device_agent.core.plan import Plan, PlannedDeployment
from device_agent.core.record import Record
from device_agent.inbox import Inbox
from device_agent.intake import Intake
from device_agent.settings import AgentSettings, Intervals
from tests.fakes.agent_link import FakeBroker, FakeLink
from tests.fakes.agent_ports import (
    FakeClock,
    FakeJournal,
    FakeOutbox,
    FakeOverseer,
    FakeProbes,
    FakeServices,
    FakeSpool,
    FakeWorker,
    quiet_log,
)
from tests.fakes.artifacts import planned_release, planned_target, raw

PREFIX = "fleet/v1/devices/node-1/"
MANIFEST = "fleet/v1/groups/line-1/manifest"
ASSIGNMENT = PREFIX + "assignment"
SETTINGS = AgentSettings(device="node-1", fleet="acme", device_class="x86_64", state_dir=Path("/nonexistent"))


class Ear:
    """What the composition root does with the link's calls."""

    def __init__(self, inbox: Inbox, intake: Intake) -> None:
        self.inbox, self.intake = inbox, intake
        self.agent: Agent | None = None

    def received(self, topic: str, payload: bytes) -> None:
        self.intake.offer(topic, payload)

    def oversized(self, topic: str, size: int) -> None:
        self.intake.note_oversized(topic)

    def connected(self) -> None:
        assert self.agent is not None
        self.inbox.put(self.agent.connected)

    def lost(self, why: str) -> None:
        assert self.agent is not None
        self.inbox.put(lambda: self.agent.lost(why))  # type: ignore[union-attr]


class World:
    """One device, from its journal to its broker."""

    def __init__(self, settings: AgentSettings = SETTINGS) -> None:
        self.settings = settings
        self.broker, self.clock, self.journal = FakeBroker(), FakeClock(), FakeJournal()
        self.outbox, self.spool, self.services = FakeOutbox(), FakeSpool(), FakeServices()
        self.overseer = FakeOverseer()
        self.boot()

    def boot(self) -> None:
        """A new process on what is on disk."""
        self.inbox = Inbox()
        intake = Intake(self.settings.topics, lambda: self.inbox.put(lambda: None))
        ear = Ear(self.inbox, intake)
        listener: Any = ear
        clock: Any = self.clock
        self.link = FakeLink(self.broker, listener, PREFIX + "availability")
        self.documents, self.attempts = FakeWorker(), FakeWorker()
        ports = Ports(
            journal=self.journal,
            outbox=self.outbox,
            spool=self.spool,
            link=self.link,
            documents=self.documents,
            attempts=self.attempts,
            services=self.services,
            probes=FakeProbes(),
            overseer=self.overseer,
            clock=clock,
            log=quiet_log(),
            boot="boot-1",
            kernel="6.1.0-test",
        )
        record = self.journal.load()
        record = record if record.device else Record(device="node-1")
        self.agent = ear.agent = Agent(self.settings, ports, record=record, step=step, inbox=self.inbox, intake=intake)
        self.agent._begin()
        self.turn()

    def turn(self) -> None:
        """Let the loop do all that can be done now, signing what there is to sign."""
        for _ in range(100):
            self.agent._tend()
            while (happening := self.inbox.take(0.0)) is not None:
                happening()
                self.agent._tend()
            if not (self.documents.orders and self.documents.orders[0].op == "sign"):
                return
            payload = self.documents.orders[0].args["payload"]
            self.documents.answer("sign", {"envelope": json.dumps(payload)})
        raise AssertionError("the loop does not come to rest")

    def later(self) -> float:
        """Sleep as the loop would."""
        wake_s = self.agent._wake_s()
        assert wake_s > self.clock.now_s, "the loop would spin"
        slept_s = wake_s - self.clock.now_s
        self.clock.now_s = wake_s
        self.turn()
        return slept_s

    def assign(self) -> None:
        self.broker.publish(ASSIGNMENT, b"assignment", retain=True)
        self.turn()
        self.documents.answer("assignment", {"group": "line-1", "sequence": 1})
        self.turn()

    def obey(self, sequence: int, *deployments: PlannedDeployment) -> None:
        self.broker.publish(MANIFEST, b"manifest %d" % sequence, retain=True)
        self.turn()
        plan = Plan(
            group="line-1",
            sequence=sequence,
            digest=f"{sequence:064x}",
            root=1,
            expires_s=9e9,
            deployments=deployments,
        )
        self.documents.answer("manifest", to_json(plan))
        self.turn()

    def said(self, kind: str) -> list[Any]:
        return [json.loads(data) for topic, data in self.broker.published if topic == PREFIX + kind]

    @property
    def state(self) -> Any:
        return self.said("state")[-1]


def _deployment(version: str = "1.0.0", counter: int = 1, **more: Any) -> PlannedDeployment:
    release = planned_release(planned_target(raw(b"x"), kind="files"), version=version, counter=counter)
    fields: dict[str, Any] = {
        "id": f"d-{counter}",
        "release": release,
        "state": "active",
        "share_bp": 10_000,
        "salt": "6f2c9e01",
        "devices": (),
        "fallback": None,
        "not_before_s": None,
        "window": None,
        "probation_s": 10,
        "refusal": None,
    }
    return PlannedDeployment(**(fields | more))


@pytest.fixture
def world() -> World:
    return World()


def test_at_rest_it_wakes_for_its_readings_only(world: World) -> None:
    world.assign()
    for _ in range(5):
        assert world.later() == pytest.approx(60, abs=1)
    assert len(world.said("heartbeat")) >= 5


def test_an_install_from_manifest_to_commit(world: World) -> None:
    world.assign()
    world.obey(1, _deployment())
    assert world.state["stage"] == "downloading"
    for op, result, stage in (
        ("fetch", {}, "installing"),
        ("stage", {"tree": "0" * 64}, "switching"),
        ("activate", {}, "probation"),
    ):
        world.attempts.answer(op, result)
        world.turn()
        assert world.state["stage"] == stage
    assert "refresh" in world.services.calls
    while world.state["stage"] == "probation":
        if world.attempts.orders:
            world.attempts.answer("check", {"code": None, "detail": ""})
            world.turn()
        else:
            world.later()
    assert world.state["version_app"] == "1.0.0"
    world.attempts.answer("commit", {})
    world.turn()
    reports = world.said("report")
    assert reports[-1]["installed"][0]["version"] == "1.0.0"
    assert [r["counter"] for r in reports] == sorted(r["counter"] for r in reports)
    assert any(r["attempt"] and r["attempt"]["outcome"] == "committed" for r in reports)
    assert world.outbox.kept == {}


def test_the_owners_intervals_reach_the_machine() -> None:
    world = World(replace(SETTINGS, intervals=Intervals(check_s=9.0, retry_most_s=3.0)))
    world.clock.luck = 0.999
    world.assign()
    world.obey(1, _deployment())
    for _ in range(5):
        world.attempts.refuse("fetch", "unreachable")
        world.turn()
        failed_s = world.clock.now_s
        while not world.attempts.orders:
            world.later()
    assert 2.9 < world.clock.now_s - failed_s <= 3.0
    for op, result in (("fetch", {}), ("stage", {"tree": "0" * 64}), ("activate", {})):
        world.attempts.answer(op, result)
        world.turn()
    switched_s = world.clock.now_s
    while not world.attempts.orders:
        world.later()
    assert world.attempts.orders[0].op == "check"
    assert world.clock.now_s - switched_s == pytest.approx(9.0)


def test_a_recall_kills_the_download(world: World) -> None:
    world.assign()
    world.obey(1, _deployment())
    assert world.attempts.history == ["fetch"]
    world.obey(2, _deployment(state="held"))
    assert world.attempts.cancelled == 1
    assert world.state["stage"] == "idle"
    assert world.attempts.orders[0].op == "discard"


def test_an_artifact_is_not_moved_while_a_document_is_verified_or_signed(world: World) -> None:
    """Both take a large worker; the device has memory for one."""
    world.assign()
    world.obey(1, _deployment())
    assert world.documents.history[-2:] == ["manifest", "sign"]
    assert (world.documents.orders, world.attempts.history) == ([], ["fetch"])
    order = world.attempts.orders.pop(0)
    order.done({"ok": True, "result": {}})
    world.inbox.take(0.0)()  # type: ignore[misc]  # the end of the download, and the loop's turn, but for the signature
    world.agent._tend()
    assert [order.op for order in world.documents.orders] == ["sign"]
    assert world.attempts.history == ["fetch"]
    world.turn()
    assert world.attempts.history == ["fetch", "stage"]


def test_a_document_does_not_wait_for_a_download_nor_going_back_for_a_document(world: World) -> None:
    world.assign()
    world.obey(1, _deployment())
    world.broker.publish(MANIFEST, b"manifest 2", retain=True)
    world.turn()
    assert [order.op for order in world.documents.orders] == ["manifest"]
    assert [order.op for order in world.attempts.orders] == ["fetch"]
    world.documents.refuse("manifest", "signature")
    for op, result in (("fetch", {}), ("stage", {"tree": "0" * 64})):
        world.attempts.answer(op, result)
        world.turn()
    world.broker.publish(MANIFEST, b"manifest 3", retain=True)
    world.turn()
    assert [order.op for order in world.documents.orders] == ["manifest"]
    world.attempts.refuse("activate", "start")
    world.turn()
    assert [order.op for order in world.attempts.orders] == ["revert"]


def test_progress_of_a_download_is_shown(world: World) -> None:
    world.assign()
    world.obey(1, _deployment())
    world.agent.progress("fetch", 0.25)
    world.clock.now_s += 6
    world.turn()
    assert world.state["progress"] == 0.25


def test_a_refused_document_is_reported_and_nothing_else_changes(world: World) -> None:
    world.assign()
    world.obey(1)
    before = world.agent.record
    world.broker.publish(MANIFEST, b"forged", retain=True)
    world.turn()
    world.documents.refuse("manifest", "signature")
    world.turn()
    assert world.agent.record.attacks == {"signature": 1}
    assert world.said("report")[-1]["attack"] == "signature"
    assert world.state["attack"] == "signature"
    assert (world.agent.record.plan, world.agent.record.packages) == (before.plan, before.packages)


def test_another_group_is_another_subscription(world: World) -> None:
    world.assign()
    world.obey(1)
    world.broker.publish(ASSIGNMENT, b"moved", retain=True)
    world.turn()
    world.documents.answer("assignment", {"group": "line-2", "sequence": 2})
    world.turn()
    assert "fleet/v1/groups/line-2/manifest" in world.link._subscribed
    assert MANIFEST not in world.link._subscribed
    assert world.spool.kept == {"assignment": b"moved"}


def test_a_restart_goes_on_where_it_was(world: World) -> None:
    world.assign()
    world.obey(1, _deployment())
    world.boot()
    assert world.documents.history.count("manifest") == 0, "what was obeyed is not verified again"
    assert world.attempts.history == ["fetch"]
    assert world.state["stage"] == "downloading"


def test_a_spool_that_can_not_be_read_keeps_no_agent_from_starting(world: World) -> None:
    world.assign()
    world.obey(1, _deployment())
    world.spool.broken = {"accepted"}
    world.boot()
    assert world.agent.record.stage == "downloading"
    assert world.documents.orders[0].op == "assignment", "what the broker holds is judged again"


def test_an_offline_start_acts_on_what_it_knew(world: World) -> None:
    world.assign()
    world.obey(1, _deployment())
    world.broker.kill()
    world.boot()
    assert world.attempts.history == ["fetch"]
    assert world.outbox.kept, "reports wait"
    world.broker.restart()
    world.turn()
    assert world.outbox.kept == {}


def test_a_command_is_answered_once(world: World) -> None:
    world.assign()
    for name in ("retry", "list-services"):
        world.broker.publish(PREFIX + "command", name.encode())
        world.turn()
        command = {"id": f"c-{name}", "name": name, "package": None, "service": None, "lines": 0}
        world.documents.answer("command", command)
        world.turn()
    assert [reply["id"] for reply in world.said("reply")] == ["c-retry", "c-list-services"]


def test_a_full_disk_stops_everything_but_the_heartbeat(world: World) -> None:
    world.assign()
    world.journal.full = True
    world.obey(1, _deployment())
    assert world.attempts.history == []
    beats = len(world.said("heartbeat"))
    for _ in range(40):
        world.later()
    assert len(world.said("heartbeat")) > beats
    world.journal.full = False
    for _ in range(3):
        world.later()
        if world.documents.orders:
            world.documents.refuse("manifest", "unreachable")
            world.turn()
            break
    assert world.attempts.history[:1] == ["fetch"]


def test_the_local_rollback_is_answered_here_and_not_over_mqtt(world: World) -> None:
    world.assign()
    responses: list[Any] = []
    world.agent.handlers.rollback(None, responses.append)
    world.turn()
    assert responses[0].status in (200, 409)
    assert world.said("reply") == []


def test_the_local_health(world: World) -> None:
    world.assign()
    health = world.agent.handlers.health()
    assert (health["group"], health["broker"]["connected"]) == ("line-1", True)


def test_the_overseer_hears_of_readiness_life_and_the_end(world: World) -> None:
    world.agent.stop()
    world.overseer.heard.clear()
    world.agent.run()
    assert world.overseer.heard[0] == "ready"
    assert world.overseer.heard[-1] == "stopping"
    assert "alive" in world.overseer.heard


def test_the_loop_wakes_for_its_overseer(world: World) -> None:
    world.overseer.due_s = world.clock.now_s + 0.25
    assert world.later() == 0.25
    assert world.overseer.heard[-1] == "alive"
