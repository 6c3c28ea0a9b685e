"""The desk where documents are judged: one worker at a time, tokens for strangers, backoff for the network."""

import io
from collections.abc import Mapping
from typing import Any

import pytest

from device_agent.bucket import CAPACITY
from device_agent.core.codec import to_json
from device_agent.core.events import Accepted, Assigned, Event, Refused
from device_agent.core.plan import Plan
from device_agent.documents import DocumentDesk, Hearers
from device_agent.inbox import Inbox
from device_agent.intake import Intake
from device_agent.lane import Lane
from device_agent.log import Log
from fleet_protocol import topics
from fleet_protocol.topics import Topics
from tests.fakes.agent_ports import FakeClock, FakeSpool, FakeWorker

MANIFEST = "fleet/v1/groups/line-1/manifest"
ASSIGNMENT = "fleet/v1/devices/node-1/assignment"
COMMAND = "fleet/v1/devices/node-1/command"
TIMESTAMP = "fleet/v1/trust/timestamp"
PLAN = Plan(group="line-1", sequence=7, digest="0" * 64, root=1, expires_s=9e9, deployments=())


class World:
    def __init__(self) -> None:
        self.clock, self.spool, self.worker, self.inbox = FakeClock(), FakeSpool(), FakeWorker(), Inbox()
        self.intake, self.log = Intake(Topics(), lambda: None), io.StringIO()
        self.events: list[Event] = []
        self.commands: list[Mapping[str, Any]] = []
        self.group: str | None = "line-1"
        self.saved = True
        hearers = Hearers(event=self._event, command=self.commands.append, group=lambda: self.group)
        self.desk = DocumentDesk(
            self.intake,
            Lane(self.worker, self.inbox),
            self.spool,
            hearers,
            clock=self.clock,  # type: ignore[arg-type]
            log=Log(self.log),
            retry_most_s=900.0,
        )

    def _event(self, event: Event) -> bool:
        self.events.append(event)
        return self.saved

    def settle(self) -> None:
        """Let the loop's turn pass."""
        while (happening := self.inbox.take(0.0)) is not None:
            happening()
        self.desk.look()

    def offer(self, topic: str, payload: bytes) -> None:
        self.intake.offer(topic, payload)
        self.settle()

    def answer(self, op: str, result: Mapping[str, Any]) -> None:
        self.worker.answer(op, result)
        self.settle()

    def refuse(self, op: str, code: str) -> None:
        self.worker.refuse(op, code)
        self.settle()

    @property
    def warnings(self) -> list[str]:
        """Codes of the warnings in the log."""
        return [line.split()[2].rstrip(":") for line in self.log.getvalue().splitlines() if " WARNING " in line]

    @property
    def refusals(self) -> list[str]:
        return [event.code for event in self.events if isinstance(event, Refused)]


@pytest.fixture
def world() -> World:
    return World()


def test_a_good_manifest_is_obeyed_and_its_redelivery_is_a_no_op(world: World) -> None:
    world.offer(MANIFEST, b"m1")
    assert world.worker.orders[0].args == {"path": "/spool/manifest", "group": "line-1"}
    world.answer("manifest", to_json(PLAN))
    assert isinstance(world.events[0], Accepted)
    assert world.events[0].plan == PLAN
    assert world.spool.kept == {"manifest": b"m1"}
    world.offer(MANIFEST, b"m1")
    assert not world.worker.orders


def test_an_accepted_document_of_the_last_run_is_a_no_op(world: World) -> None:
    world.spool.kept["manifest"] = b"m1"
    world.desk.remember(MANIFEST, topics.MANIFEST)
    world.offer(MANIFEST, b"m1")
    assert not world.worker.orders


def test_rule_5_an_accepted_document_that_can_not_be_read_is_none(world: World) -> None:
    """It comes again; until then the file is not looked at, nor shown to a worker."""
    world.spool.kept["manifest"] = b"m1"
    world.spool.broken = {"accepted"}
    world.desk.remember(MANIFEST, topics.MANIFEST)
    assert world.warnings == ["spool"]
    world.offer(TIMESTAMP, b"t1")
    world.answer("refresh", {"root": 1})
    world.offer(MANIFEST, b"m1")
    world.answer("manifest", to_json(PLAN))
    world.offer(TIMESTAMP, b"t2")
    assert world.worker.orders[0].args["path"] == "/spool/accepted"


def test_rule_5_a_verdict_stands_without_its_file(world: World) -> None:
    """A disk that became read-only between verifying and answering ends no agent."""
    world.spool.broken = {"accept", "refuse", "forget"}
    world.offer(MANIFEST, b"good")
    world.answer("manifest", to_json(PLAN))
    world.offer(MANIFEST, b"bad")
    world.refuse("manifest", "signature")
    assert [type(event) for event in world.events] == [Accepted, Refused]
    assert world.warnings.count("spool") == 2
    for payload in (b"good", b"bad"):
        world.offer(MANIFEST, payload)
        assert not world.worker.orders
    world.desk.regrouped()
    world.offer(MANIFEST, b"good")
    assert world.worker.orders


@pytest.mark.parametrize("how", ["accept", "forget"])
def test_rule_5_what_is_not_obeyed_any_more_is_not_verified_again(world: World, how: str) -> None:
    """An old file would be refused as a replay, or as another group's, and nobody has sent it."""
    world.offer(MANIFEST, b"m1")
    world.answer("manifest", to_json(PLAN))
    world.spool.broken = {how}
    if how == "forget":
        world.desk.regrouped()
    else:
        world.offer(MANIFEST, b"m2")
        world.answer("manifest", to_json(PLAN))
    world.offer(TIMESTAMP, b"t")
    assert [order.op for order in world.worker.orders] == ["refresh"]


def test_an_assignment_and_a_command(world: World) -> None:
    world.offer(COMMAND, b"c1")
    world.intake.offer(ASSIGNMENT, b"a1")
    world.answer("command", {"id": "c1", "name": "retry", "package": None, "service": None, "lines": 0})
    assert world.commands[0]["id"] == "c1"
    world.answer("assignment", {"group": "line-2", "sequence": 1})
    assert isinstance(world.events[0], Assigned)
    assert world.events[0].group == "line-2"


def test_another_groups_manifest_starts_no_worker(world: World) -> None:
    world.offer("fleet/v1/groups/line-9/manifest", b"m")
    assert not world.worker.orders
    world.group = None
    world.offer(MANIFEST, b"m")
    assert not world.worker.orders


def test_rule_1_a_flood_costs_a_few_workers_and_the_newest_gets_its_turn(world: World) -> None:
    for number in range(500):
        world.intake.offer(MANIFEST, b"bad%d" % number)
        if world.worker.orders:
            world.refuse("manifest", "signature")
        world.settle()
    assert len(world.worker.history) == CAPACITY
    world.offer(MANIFEST, b"good")
    assert not world.worker.orders
    wake_s = world.desk.wake_s()
    assert wake_s is not None
    world.clock.now_s = wake_s
    world.settle()
    world.answer("manifest", to_json(PLAN))
    assert isinstance(world.events[-1], Accepted)


def test_rule_1_a_flood_of_commands_holds_up_no_manifest(world: World) -> None:
    """A recall among them, say: it gets the second token that there is."""
    for number in range(100):
        world.intake.offer(COMMAND, b"bad %d" % number)
    world.offer(MANIFEST, b"good")
    world.refuse("command", "parse")
    world.answer("manifest", to_json(PLAN))
    assert [type(event) for event in world.events] == [Refused, Accepted]


def test_rule_1_a_flood_of_oversized_messages_takes_no_document_its_token(world: World) -> None:
    for _ in range(3 * CAPACITY):
        world.offer(MANIFEST, b"x" * 300_000)
    assert world.refusals == ["size"] * CAPACITY
    world.offer(MANIFEST, b"good")
    world.answer("manifest", to_json(PLAN))
    assert isinstance(world.events[-1], Accepted)


def test_rule_2_a_protocol_fault_is_counted_and_remembered(world: World) -> None:
    world.offer(MANIFEST, b"bad")
    world.refuse("manifest", "signature")
    assert world.refusals == ["signature"]
    world.offer(MANIFEST, b"bad")
    assert not world.worker.orders
    assert world.spool.kept == {}


def test_rule_2_a_network_fault_waits_and_is_tried_again(world: World) -> None:
    world.offer(MANIFEST, b"m")
    world.refuse("manifest", "absent")
    assert not world.events
    assert not world.worker.orders
    first_s = world.desk.wake_s()
    assert first_s is not None
    assert first_s > world.clock.now_s
    world.clock.now_s = first_s
    world.settle()
    world.refuse("manifest", "timeout")
    second_s = world.desk.wake_s()
    assert second_s is not None
    assert second_s - world.clock.now_s > 0
    world.desk.connected()
    world.settle()
    world.answer("manifest", to_json(PLAN))
    assert isinstance(world.events[0], Accepted)


def test_rule_2_what_newer_keys_may_have_signed_is_judged_again(world: World) -> None:
    world.offer(MANIFEST, b"m")
    for _ in range(3):
        world.worker.refuse("manifest", "signature", retry_after_s=30.0)
        world.settle()
        assert world.refusals == ["signature"]
        assert world.desk.wake_s() == world.clock.now_s + 30.0
        world.clock.now_s += 30.0
        world.settle()
    world.answer("manifest", to_json(PLAN))
    assert isinstance(world.events[-1], Accepted)


def test_rule_2_other_kinds_go_on_while_one_waits(world: World) -> None:
    world.offer(MANIFEST, b"m")
    world.refuse("manifest", "absent")
    world.offer(COMMAND, b"c")
    assert world.worker.orders[0].op == "command"


def test_rule_2_a_journal_that_is_full_keeps_the_manifest_waiting(world: World) -> None:
    world.saved = False
    world.offer(MANIFEST, b"m")
    world.answer("manifest", to_json(PLAN))
    assert world.spool.kept == {}
    assert world.desk.wake_s() is not None


def test_rule_3_new_trust_documents_verify_the_obeyed_manifest_again(world: World) -> None:
    world.offer(TIMESTAMP, b"t1")
    world.answer("refresh", {"root": 1})
    world.offer(MANIFEST, b"m")
    world.answer("manifest", to_json(PLAN))
    world.offer(TIMESTAMP, b"t2")
    assert world.worker.orders[0].args["path"] == "/spool/accepted"
    world.refuse("manifest", "unreachable")
    assert world.desk.wake_s() is not None
    world.desk.connected()
    world.settle()
    world.answer("manifest", to_json(PLAN))
    assert [type(event) for event in world.events] == [Accepted, Accepted]
    world.offer(TIMESTAMP, b"t2")
    assert not world.worker.orders


def test_rule_3_a_bad_timestamp_is_refused(world: World) -> None:
    world.offer(TIMESTAMP, b"bad")
    world.refuse("refresh", "metadata")
    assert world.refusals == ["metadata"]
    assert not world.worker.orders


def test_rule_3_a_refused_manifest_is_looked_at_again_with_new_trust(world: World) -> None:
    world.offer(MANIFEST, b"m")
    world.refuse("manifest", "unlisted")
    world.offer(TIMESTAMP, b"t")
    world.answer("refresh", {})
    world.offer(MANIFEST, b"m")
    world.answer("manifest", to_json(PLAN))
    assert isinstance(world.events[-1], Accepted)


@pytest.mark.parametrize("topic", [COMMAND, ASSIGNMENT, MANIFEST])
def test_rule_3_looking_again_waits_for_one_document_at_the_most(world: World, topic: str) -> None:
    """A flood of bad documents must not keep a device from hearing that a key was revoked."""
    world.intake.offer(TIMESTAMP, b"t")
    for number in range(2):
        world.offer(topic, b"bad %d" % number)
    kind = topic.rpartition("/")[2]
    world.refuse(kind, "signature")
    world.answer("refresh", {"root": 1})
    assert world.worker.orders[0].op == kind
    world.refuse(kind, "signature")
    assert not world.worker.orders


def test_rule_3_a_good_manifest_is_looking_again(world: World) -> None:
    world.intake.offer(TIMESTAMP, b"t")
    world.offer(MANIFEST, b"good")
    world.answer("manifest", to_json(PLAN))
    assert not world.worker.orders


def test_rule_4_a_document_that_kills_workers_is_given_up(world: World) -> None:
    world.offer(MANIFEST, b"killer")
    for _ in range(3):
        world.refuse("manifest", "worker")
        world.desk.connected()
        world.settle()
    assert world.refusals == ["parse"]
    assert not world.worker.orders


def test_oversized_messages_are_one_refusal_a_burst(world: World) -> None:
    for _ in range(50):
        world.intake.offer(MANIFEST, b"x" * 300_000)
    world.settle()
    assert world.refusals == ["size"]


def test_messages_on_topics_that_are_none_of_ours_are_one_refusal_a_burst(world: World) -> None:
    for number in range(50):
        world.intake.offer(f"fleet/v1/trust/root/x{number}", b"x")
        world.intake.offer(MANIFEST, b"x" * 300_000)
    world.settle()
    assert world.refusals == ["schema", "size"]


def test_a_document_handed_in_here_is_told_its_verdict(world: World) -> None:
    verdicts: list[tuple[str | None, str]] = []

    def judged(code: str | None, detail: str) -> None:
        verdicts.append((code, detail))

    for _ in range(2):
        world.desk.hand_in(MANIFEST, b"bad", judged)
        world.settle()
        world.refuse("manifest", "signature")
    world.desk.hand_in(MANIFEST, b"good", judged)
    world.settle()
    world.answer("manifest", to_json(PLAN))
    world.desk.hand_in(MANIFEST, b"good", judged)
    assert [code for code, _ in verdicts] == ["signature", "signature", None, None]


def test_another_group_forgets_every_verdict(world: World) -> None:
    world.offer(MANIFEST, b"m")
    world.answer("manifest", to_json(PLAN))
    world.desk.regrouped()
    world.offer(MANIFEST, b"m")
    assert world.worker.orders
