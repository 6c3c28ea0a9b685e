"""Rules Y1 to Y4 of server.services.succession, and invariant S13; Y1 is tried with the tick too."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fleet_protocol.errors import PolicyError
from fleet_protocol.topics import MANIFEST
from server.adapters.sql.store import SqlStore
from server.domain.rollout import RolloutState
from server.domain.verbs import Verb
from tests.fakes.server_stack import GROUP, ServerStack

WHOLE = [{"share": 100}]


def complete(stack: ServerStack, job: str, *nodes: str) -> None:
    """The devices say that they have it, from this job."""
    stack.tick()
    for node in nodes:
        has(stack, node, job)
        stack.report(job, node, "committed")
    stack.tick(after_s=301)
    assert stack.rollout(job).state is RolloutState.COMPLETE


def has(stack: ServerStack, node: str, job: str) -> None:
    rollout = stack.rollout(job)
    stack.installed(node, rollout.version, rollout.counter, deployment=job)


def states(stack: ServerStack) -> dict[str, str]:
    return {each.id: each.state for each in stack.manifest().deployments}


def test_y2_the_same_release_again_takes_the_place_of_the_deployment_before(stack: ServerStack) -> None:
    tried = stack.publish(target_nodes=["node-1"])
    complete(stack, tried, "node-1")
    wider = stack.publish(waves=WHOLE)
    assert states(stack) == {wider: "active"}
    with pytest.raises(PolicyError, match="replaced by a newer update of web"):
        stack.steering.steer(tried, Verb.RECALL)


def test_y2_what_the_new_one_does_not_cover_stands_beside_it(stack: ServerStack) -> None:
    """Half of the group may not hold the device that is named."""
    tried = stack.publish(target_nodes=["node-1"])
    complete(stack, tried, "node-1")
    half = stack.publish(waves=[{"share": 50}])
    assert states(stack) == {tried: "active", half: "active"}


def test_y2_a_recalled_one_stays(stack: ServerStack) -> None:
    bad = stack.publish(waves=WHOLE)
    stack.steering.steer(bad, Verb.RECALL)
    again = stack.publish(waves=WHOLE)
    assert states(stack) == {bad: "recalled", again: "active"}


@pytest.mark.parametrize("who", ["operator", "engine"])
def test_y3_a_recall_goes_for_what_was_replaced_too(stack: ServerStack, who: str) -> None:
    """node-1 still says that it has the release from the first: it was away, or no wave has reached it."""
    tried = stack.publish(target_nodes=["node-1"])
    complete(stack, tried, "node-1")
    wider = stack.publish(waves=[{"share": 0, "devices": ["node-2"]}, {"share": 100}])
    stack.tick()
    if who == "operator":
        stack.steering.steer(wider, Verb.RECALL)
    else:
        stack.report(wider, "node-2", "rolled_back", code="unhealthy")
        stack.tick()
    assert states(stack) == {tried: "recalled", wider: "recalled"}
    assert stack.rollout(tried).reason == f"recalled with {wider}"
    with stack.store.read() as reads:
        entries = [(entry.verb, entry.subject, entry.detail) for entry in reads.audit_entries(10)]
    assert ("recall", tried, f"recalled with {wider}") in entries


def test_y3_a_deployment_that_nobody_has_the_release_from_does_not_come_back(stack: ServerStack) -> None:
    tried = stack.publish(target_nodes=["node-1"])
    complete(stack, tried, "node-1")
    wider = stack.publish(waves=WHOLE)
    has(stack, "node-1", wider)
    stack.steering.steer(wider, Verb.RECALL)
    assert states(stack) == {wider: "recalled"}


def test_y3_a_recall_leaves_other_releases_and_other_devices_alone(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2)
    old = stack.publish(waves=WHOLE)
    complete(stack, old, "node-1", "node-2", "node-3", "node-4")
    elsewhere = stack.publish(package_version="2.0.0", target_nodes=["node-4"])
    complete(stack, elsewhere, "node-4")
    bad = stack.publish(package_version="2.0.0", target_nodes=["node-1"])
    stack.steering.steer(bad, Verb.RECALL)
    assert states(stack) == {old: "active", elsewhere: "active", bad: "recalled"}


def test_y3_whoever_recalls_it_for_the_whole_group_recalls_it_for_a_part(stack: ServerStack) -> None:
    whole = stack.publish(waves=WHOLE)
    complete(stack, whole, "node-1", "node-2", "node-3", "node-4")
    again = stack.publish(target_nodes=["node-1"])
    assert states(stack) == {whole: "active", again: "active"}
    stack.steering.steer(whole, Verb.RECALL)
    assert states(stack) == {whole: "recalled", again: "recalled"}


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE rollouts SET policy = '{' WHERE id = 'tried'",
        "UPDATE devices SET installed = '{' WHERE id = 'node-3'",
    ],
)
def test_y4_a_row_that_can_not_be_read_holds_no_recall_up(tmp_path: Path, edit: str) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/fairlead.db")
    try:
        stack = ServerStack(tmp_path, store=store)
        stack.release("web", "1.0.0", 1)
        stack.enrol("node-1", "node-2", "node-3")
        complete(stack, stack.publish(target_nodes=["node-1"], update_id="tried"), "node-1")
        wider = stack.publish(waves=WHOLE)
        with closing(sqlite3.connect(tmp_path / "fairlead.db")) as connection, connection:
            assert connection.execute(edit).rowcount == 1
        stack.steering.steer(wider, Verb.RECALL)
        assert states(stack) == {wider: "recalled"}
    finally:
        store.close()


def test_y4_a_manifest_that_would_be_too_large_holds_no_recall_up(
    stack: ServerStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = stack.publish(target_nodes=["node-1"])
    complete(stack, tried, "node-1")
    wider = stack.publish(waves=WHOLE)
    size = len(stack.link.retained[stack.topics.of(MANIFEST, group=GROUP)])
    monkeypatch.setattr("server.services.manifests.MANIFEST_SIZE", size + 100)
    stack.steering.steer(wider, Verb.RECALL)
    assert states(stack) == {wider: "recalled"}
    assert (stack.rollout(tried).state, stack.job(tried).superseded) == (RolloutState.COMPLETE, True)
