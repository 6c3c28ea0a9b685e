"""Rules Q1 to Q3 of server.services.commands."""

import threading

import pytest

from fleet_protocol import envelope
from fleet_protocol.acceptance import open_command
from fleet_protocol.errors import FleetError
from fleet_protocol.messages import Command, Reply
from fleet_protocol.payload import to_payload
from fleet_protocol.schema import from_payload
from fleet_protocol.topics import COMMAND
from server.services.commands import Ask
from tests.fakes.server_stack import FLEET, ServerStack


def answer(pending_id: str, *, code: str | None = None, detail: str = "") -> bytes:
    return to_payload(Reply(id=pending_id, code=code, detail=detail, result={"verdict": "ok"}))


def test_q1_the_command_is_what_the_device_accepts(stack: ServerStack) -> None:
    pending = stack.commands.send("node-1", Ask(name="fetch-logs", service="web", lines=5))
    topic, payload, retain, qos = stack.link.sent[-1]
    assert (topic, retain, qos) == (stack.topics.of(COMMAND, device="node-1"), False, 1)
    role = stack.catalogue.require().root.roles["deployment"]
    opened = open_command(payload, role=role, fleet=FLEET, device="node-1", now_s=stack.clock.now_s())
    assert (opened.document.id, opened.document.service, opened.document.lines) == (pending.id, "web", 5)
    with pytest.raises(FleetError, match="expired"):
        open_command(payload, role=role, fleet=FLEET, device="node-1", now_s=stack.clock.now_s() + 60)


def test_q2_the_answer_of_another_device_does_not_count(stack: ServerStack) -> None:
    pending = stack.commands.send("node-1", Ask(name="check-health"))
    assert not stack.commands.answered("node-2", answer(pending.id))
    assert not stack.commands.answered("node-1", answer("c-other"))
    assert not stack.commands.answered("node-1", b"{")
    assert not stack.commands.answered("node-1", b"\xff" * 1_000_000)
    assert stack.commands.dropped == 4
    assert stack.commands.answered("node-1", answer(pending.id))
    assert not stack.commands.answered("node-1", answer(pending.id)), "once"
    assert stack.commands.wait(pending).result == {"verdict": "ok"}


def test_q3_no_answer_is_offline_and_the_late_one_is_dropped(stack: ServerStack) -> None:
    pending = stack.commands.send("node-1", Ask(name="check-health"))
    with pytest.raises(FleetError) as caught:
        stack.commands.wait(pending)
    assert caught.value.code == "offline"
    assert not stack.commands.answered("node-1", answer(pending.id))


def test_the_devices_own_error_comes_back_as_it_is(stack: ServerStack) -> None:
    pending = stack.commands.send("node-1", Ask(name="rollback"))
    stack.commands.answered("node-1", answer(pending.id, code="no-fallback", detail="nothing to go back to"))
    with pytest.raises(FleetError) as caught:
        stack.commands.wait(pending)
    assert (caught.value.code, caught.value.detail) == ("no-fallback", "nothing to go back to")


def test_without_a_broker_nothing_is_sent(stack: ServerStack) -> None:
    stack.link.connected = False
    sent = len(stack.link.sent)
    with pytest.raises(FleetError) as caught:
        stack.asked.one("node-1", Ask(name="check-health"))
    assert caught.value.code == "offline"
    assert len(stack.link.sent) == sent


def test_many_are_asked_at_once_and_each_has_its_own_end(stack: ServerStack) -> None:
    publish = stack.link.publish

    def published(topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        publish(topic, payload, retain=retain, qos=qos)
        device = stack.topics.parse(topic).values["device"]
        command = from_payload(Command, envelope.decode(payload, max_size=9_000).payload, max_size=9_000)
        code = {"node-1": None, "node-2": "unsupported"}.get(device, "silent")
        if code != "silent":
            threading.Thread(target=stack.commands.answered, args=(device, answer(command.id, code=code))).start()

    stack.link.publish = published  # type: ignore[method-assign]
    answers = stack.asked.many(["node-1", "node-2", "node-3"], Ask(name="check-health"))
    found = {device: getattr(each, "code", None) for device, each in answers.items()}
    assert found == {"node-1": None, "node-2": "unsupported", "node-3": "offline"}


def test_members_of_a_question(stack: ServerStack) -> None:
    assert stack.asked.members(None, None) == ["node-1", "node-2", "node-3", "node-4"]
    assert stack.asked.members(None, ["node-2", "node-2"]) == ["node-2"]
    for group, nodes, code in (("nothing", None, "unknown-group"), (None, ["nobody"], "unknown-node")):
        with pytest.raises(FleetError) as caught:
            stack.asked.members(group, nodes)
        assert caught.value.code == code
