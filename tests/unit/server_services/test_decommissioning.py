"""Rules X1 to X4 of server.services.decommissioning: invariant S11."""

import pytest
from prometheus_client import CollectorRegistry

from fleet_protocol.acceptance import Mark, open_assignment
from fleet_protocol.errors import PolicyError
from fleet_protocol.topics import ASSIGNMENT, AVAILABILITY, REPORT, STATE
from server.domain.rollout import RolloutState
from server.domain.verbs import Verb
from server.services.ingest import Ingest, IngestSettings
from server.services.ingest_metrics import IngestMetrics
from tests.fakes.reporting import Post, ReportingDevice
from tests.fakes.server_stack import CLASS, FLEET, GROUP, ServerStack
from tests.fakes.waiting import until


def assignment(stack: ServerStack, device: str, mark: Mark | None = None) -> Mark:
    """The device's assignment as one that remembers `mark` takes it."""
    data = stack.link.retained[stack.topics.of(ASSIGNMENT, device=device)]
    role = stack.catalogue.require().root.roles["deployment"]
    return open_assignment(data, role=role, fleet=FLEET, device=device, mark=mark).mark


def known(stack: ServerStack) -> list[str]:
    with stack.store.read() as reads:
        return [device.id for device in reads.devices()]


def enrol_again(stack: ServerStack, node: ReportingDevice) -> None:
    stack.nodes.register(node.name, GROUP, CLASS, node.enrolled().public_key)


def test_an_unknown_device_can_not_be_removed(stack: ServerStack) -> None:
    with pytest.raises(PolicyError) as caught:
        stack.decommissioning.remove("nobody")
    assert caught.value.code == "unknown-node"


def test_x1_what_it_sends_is_refused_until_it_is_enrolled_again(stack: ServerStack) -> None:
    node, registry = ReportingDevice("node-9"), CollectorRegistry()
    enrol_again(stack, node)
    ingest = Ingest(stack.store, IngestSettings(fleet=FLEET), IngestMetrics(registry), on_reply=lambda *_: None)
    post = Post()

    def send(*payloads: bytes) -> str | None:
        """What is known of the device once all of them were taken."""
        wanted = len(post.acknowledged) + len(payloads)
        for payload in payloads:
            assert ingest.offer(post.message(REPORT, payload, device=node.name))
        until(lambda: len(post.acknowledged) == wanted)
        with stack.store.read() as reads:
            device = reads.device(node.name)
        return None if device is None else device.why

    ingest.start()
    try:
        recorded = [node.report(why="one"), node.report(why="two")]
        assert send(*recorded) == "two"
        stack.decommissioning.remove(node.name)
        assert send(node.report(why="I am still here")) is None
        enrol_again(stack, node)
        assert send(*recorded) == "", "X4: what was recorded of it can not be replayed"
        assert send(node.report(why="new")) == "new"
    finally:
        ingest.stop()

    def dropped(code: str) -> float | None:
        return registry.get_sample_value("fairlead_ingest_dropped_total", {"kind": "report", "code": code})

    assert (dropped("unknown-node"), dropped("replay")) == (1, 2)


def test_x2_its_retained_topics_are_emptied(stack: ServerStack) -> None:
    for kind in (AVAILABILITY, STATE):
        stack.link.retained[stack.topics.of(kind, device="node-1")] = b"said by the device"
    stack.decommissioning.remove("node-1")
    assert not [topic for topic in stack.link.retained if "/node-1/" in topic]
    assert [topic for topic in stack.restarted().link.retained if "/node-2/" in topic], "of nobody else"
    assert stack.publication.wanted(stack.topics.of(ASSIGNMENT, device="node-1")) is None


def test_x4_its_next_assignment_is_newer_than_its_last(stack: ServerStack) -> None:
    node = ReportingDevice("node-9")
    enrol_again(stack, node)
    stack.nodes.move("node-9", "line-2")
    last = assignment(stack, "node-9")
    stack.decommissioning.remove("node-9")
    enrol_again(stack, node)
    assert assignment(stack, "node-9", last).sequence == last.sequence + 1


def test_x3_a_rollout_that_named_it_goes_on_without_it(stack: ServerStack) -> None:
    job = stack.publish(waves=[{"share": 0, "devices": ["node-1", "node-2"]}, {"share": 100}])
    stack.tick()
    stack.report(job, "node-2", "committed")
    stack.decommissioning.remove("node-1")
    stack.tick()
    assert stack.rollout(job).wave == 1, "all that are left of the first wave have committed"
    for node in ("node-3", "node-4"):
        stack.report(job, node, "committed")
    stack.tick()
    assert stack.rollout(job).state is RolloutState.COMPLETE


def test_x3_a_device_that_failed_excuses_nobody_else(stack: ServerStack) -> None:
    job = stack.publish(waves=[{"share": 100}], on_failure="hold", failure_limit=0)
    stack.tick()
    stack.report(job, "node-1", "failed", code="io")
    stack.tick()
    stack.steering.steer(job, Verb.RESUME)
    assert stack.rollout(job).excused_failures == 1
    stack.decommissioning.remove("node-1")
    assert stack.rollout(job).excused_failures == 0
    stack.report(job, "node-2", "failed", code="io")
    stack.tick()
    assert stack.rollout(job).state is RolloutState.HELD


def test_x3_a_silent_device_excuses_nobody_else(stack: ServerStack) -> None:
    job = stack.publish(waves=[{"share": 100}], silence_s=60, silence_limit=0)
    stack.tick()
    stack.clock.ahead_s += 61
    stack.hear("node-2", "node-3", "node-4")
    stack.tick()
    assert "silent" in stack.rollout(job).reason
    stack.steering.steer(job, Verb.RESUME)
    stack.decommissioning.remove("node-1")
    assert stack.rollout(job).excused_silent == 0
    stack.tick()
    assert stack.rollout(job).state is RolloutState.ACTIVE
    stack.clock.ahead_s += 61
    stack.hear("node-3", "node-4")
    stack.tick()
    assert stack.rollout(job).state is RolloutState.HELD


def test_a_removal_that_fails_has_changed_nothing(stack: ServerStack, monkeypatch: pytest.MonkeyPatch) -> None:
    job, sent = stack.publish(waves=[{"share": 100}]), len(stack.link.sent)
    stack.tick()
    sent = len(stack.link.sent)
    with monkeypatch.context() as broken:
        broken.setattr("server.services.audit.record", lambda *_, **__: (_ for _ in ()).throw(OSError("disk")))
        with pytest.raises(OSError, match="disk"):
            stack.decommissioning.remove("node-1")
    assert "node-1" in known(stack) and len(stack.link.sent) == sent
    for node in ("node-1", "node-2", "node-3", "node-4"):
        stack.report(job, node, "committed")
    stack.tick()
    assert stack.rollout(job).state is RolloutState.COMPLETE
