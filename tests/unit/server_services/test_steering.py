"""The verbs, and `retry` with devices that answer and devices that do not."""

import threading

import pytest

from fleet_protocol import envelope
from fleet_protocol.errors import FleetError
from fleet_protocol.messages import Command, Reply
from fleet_protocol.payload import to_payload
from fleet_protocol.schema import from_payload
from fleet_protocol.topics import COMMAND
from server.domain.rollout import RolloutState
from server.domain.verbs import Verb
from tests.fakes.server_stack import ServerStack


def code_of(stack: ServerStack, job: str, verb: Verb) -> str:
    with pytest.raises(FleetError) as caught:
        stack.steering.steer(job, verb)
    return caught.value.code


def test_hold_and_resume_are_two_manifests(stack: ServerStack) -> None:
    job = stack.publish()
    stack.tick()
    stack.steering.steer(job, Verb.HOLD, "lunch")
    assert (stack.deployment(job).state, stack.rollout(job).reason) == ("held", "lunch")
    held = stack.manifest().sequence
    stack.steering.steer(job, Verb.RESUME)
    assert (stack.deployment(job).state, stack.rollout(job).reason) == ("active", "")
    assert stack.manifest().sequence == held + 1
    assert stack.rollout(job).wave == 0, "it goes on from where it was"


def test_a_recall_is_final_and_always_a_newer_manifest(stack: ServerStack) -> None:
    """Invariant S4."""
    job = stack.publish()
    sequence = stack.manifest().sequence
    stack.steering.steer(job, Verb.RECALL, "smoke")
    assert stack.manifest().sequence == sequence + 1
    assert {code_of(stack, job, verb) for verb in (Verb.HOLD, Verb.RESUME, Verb.ADVANCE, Verb.RECALL)} == {
        "wrong-state"
    }
    with pytest.raises(FleetError) as caught:
        stack.retrying.retry(job)
    assert caught.value.code == "wrong-state"


def test_advance_opens_the_next_wave_and_changes_no_manifest_by_itself(stack: ServerStack) -> None:
    job = stack.publish(waves=[{"share": 10, "devices": ["node-1"]}, {"share": 100}], soak_s=1_000)
    stack.tick()
    sequence = stack.manifest().sequence
    stack.steering.steer(job, Verb.ADVANCE)
    assert stack.manifest().sequence == sequence
    stack.tick()
    assert (stack.rollout(job).wave, stack.rollout(job).advance) == (1, False)
    assert code_of(stack, job, Verb.ADVANCE) == "wrong-state", "the last wave is open"


def test_every_verb_is_audited_with_its_reason(stack: ServerStack) -> None:
    job = stack.publish()
    stack.steering.steer(job, Verb.HOLD, "because")
    with stack.store.read() as reads:
        entry = reads.audit_entries(1)[0]
    assert (entry.who, entry.verb, entry.subject, entry.detail) == ("operator", "hold", job, "because")


def test_an_unknown_job(stack: ServerStack) -> None:
    assert code_of(stack, "d-nothing", Verb.HOLD) == "unknown-update"


def answering(stack: ServerStack, *devices: str) -> None:
    """Have these devices accept every command, each from a thread of its own as the ingest's is."""
    publish = stack.link.publish

    def published(topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        publish(topic, payload, retain=retain, qos=qos)
        address = stack.topics.parse(topic)
        if address.type is COMMAND and address.values["device"] in devices:
            command = from_payload(Command, envelope.decode(payload, max_size=9_000).payload, max_size=9_000)
            reply = to_payload(Reply(id=command.id, code=None, detail="", result={}))
            threading.Thread(target=stack.commands.answered, args=(command.device, reply)).start()

    stack.link.publish = published  # type: ignore[method-assign]


def test_retry_clears_the_failure_of_devices_that_accept_it(stack: ServerStack) -> None:
    job = stack.publish(waves=[{"share": 100}], on_failure="hold")
    stack.tick()
    stack.report(job, "node-1", "failed", code="io")
    stack.report(job, "node-2", "rolled_back", code="unhealthy")
    stack.report(job, "node-3", "committed")
    stack.tick()
    assert stack.rollout(job).state is RolloutState.HELD
    answering(stack, "node-1")
    retried = stack.retrying.retry(job)
    assert (retried.accepted, retried.unanswered) == (("node-1",), ("node-2",))
    with stack.store.read() as reads:
        outcomes = {attempt.device: attempt.outcome for attempt in reads.attempts(job)}
    assert outcomes == {"node-1": None, "node-2": "rolled_back", "node-3": "committed"}


def test_retry_with_nothing_failed(stack: ServerStack) -> None:
    job = stack.publish()
    with pytest.raises(FleetError, match="nothing to retry"):
        stack.retrying.retry(job)
