"""Rules U1 to U6 of server.services.publishing, and what the manifest says of a request."""

from typing import Any

import pytest
from pydantic import ValidationError

from firmware_tools import catalogue as editing
from fleet_protocol.errors import FleetError
from fleet_protocol.timestamps import format_time
from server.domain.rollout import RolloutState
from server.domain.verbs import Verb
from server.services.update_request import UpdateRequest
from tests.fakes.server_stack import DAY_S, URL, ServerStack


def refused(stack: ServerStack, **members: Any) -> str:
    """The code of the refusal; nothing was stored and nothing published."""
    sent = len(stack.link.sent)
    with stack.store.read() as reads:
        before = reads.jobs(), reads.rollouts(), reads.documents(), reads.audit_entries(100)
    with pytest.raises(FleetError) as caught:
        stack.publish(**members)
    with stack.store.read() as reads:
        assert (reads.jobs(), reads.rollouts(), reads.documents(), reads.audit_entries(100)) == before, "U6"
    assert len(stack.link.sent) == sent
    assert caught.value.detail, "every refusal says what to do"
    return caught.value.code


def completed(stack: ServerStack, **members: Any) -> str:
    job = stack.publish(waves=[{"share": 100}], **members)
    stack.tick()
    for number in range(1, 5):
        stack.report(job, f"node-{number}", "committed")
        stack.installed(f"node-{number}", stack.rollout(job).version, stack.rollout(job).counter)
    stack.tick()
    assert stack.rollout(job).state is RolloutState.COMPLETE
    return job


def test_a_group_gets_three_waves_unless_told_otherwise(stack: ServerStack) -> None:
    waves = stack.rollout(stack.publish()).policy.waves
    assert [wave.share_bp for wave in waves] == [500, 2_500, 10_000]


def test_named_devices_are_one_wave_and_their_group_is_found(stack: ServerStack) -> None:
    stack.enrol("other-1", group="line-2")
    rollout = stack.rollout(stack.publish(target_nodes=["other-1"]))
    assert rollout.group == "line-2"
    assert [(wave.share_bp, wave.devices) for wave in rollout.policy.waves] == [(0, ("other-1",))]


def test_u1_only_what_the_catalogue_lists(stack: ServerStack) -> None:
    assert refused(stack, package_version="9.9.9") == "unknown-release"
    assert refused(stack, package_name="nothing") == "unknown-release"
    assert refused(stack, update_type="service") == "bad-request"


def test_u1_hardware_that_the_release_does_not_fit(stack: ServerStack) -> None:
    stack.enrol("arm-1", group="arm", device_class="aarch64")
    stack.enrol("arm-2", device_class="aarch64")
    assert refused(stack, target_nodes=["arm-1"]) == "class"
    assert refused(stack, target_nodes=["node-1", "arm-2"]) == "class"
    assert refused(stack, group="arm") == "class"
    stack.publish()


def test_an_update_may_be_one_that_devices_can_not_go_back_from(stack: ServerStack) -> None:
    assert not stack.deployment(stack.publish(target_nodes=["node-1"])).irreversible
    stack.enrol("other-1", group="line-2")
    job = stack.publish(target_nodes=["other-1"], irreversible=True)
    assert stack.deployment(job, "line-2").irreversible


def test_u1_the_kind_is_the_releases_own_unless_it_is_asked_for(stack: ServerStack) -> None:
    assert refused(stack, update_type="driver") == "bad-request"
    assert stack.job(stack.publish(update_type=None)).update_type == "files"


def test_u1_below_the_floor(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2)
    editing.remove(stack.desk, "web", "1.0.0", now_s=stack.clock.now_s())
    editing.set_floor(stack.desk, "web", 2, now_s=stack.clock.now_s())
    stack.sign()
    stack.upload()
    assert refused(stack) == "unknown-release"
    stack.publish(package_version="2.0.0")


def test_u1_the_artifact_is_stored_or_has_an_address(stack: ServerStack) -> None:
    sha256 = stack.release("web", "2.0.0", 2, stored=False)
    assert refused(stack, package_version="2.0.0") == "unknown-artifact"
    job = stack.publish(package_version="2.0.0", package_url="https://cdn.example/{sha256}")
    assert [source.url for source in stack.deployment(job).sources] == [f"https://cdn.example/{sha256}"]


def test_the_operators_address_comes_before_the_servers(stack: ServerStack) -> None:
    job = stack.publish(package_url=["https://a.example/x", "https://b.example/x"])
    deployment = stack.deployment(job)
    own = f"{URL}/artifacts/{deployment.targets[0].sha256}"
    assert [source.url for source in deployment.sources] == ["https://a.example/x", "https://b.example/x", own]


def test_one_address_can_not_stand_for_two_artifacts(stack: ServerStack) -> None:
    stack.pack("web", "2.0.0", 2)
    stack.release("web", "2.0.0", 2, classes=("aarch64",))
    assert refused(stack, package_version="2.0.0", package_url="https://cdn.example/web") == "bad-request"
    job = stack.publish(package_version="2.0.0", package_url="https://cdn.example/{path}")
    urls = {source.url for source in stack.deployment(job).sources if "cdn" in source.url}
    assert urls == {f"https://cdn.example/web/2.0.0/{name}.tar.zst" for name in ("x86_64", "aarch64")}


def test_u2_devices_by_name(stack: ServerStack) -> None:
    stack.enrol("other-1", group="line-2")
    assert refused(stack, target_nodes=["node-1", "nobody"]) == "unknown-node"
    assert refused(stack, target_nodes=["node-1", "other-1"]) == "bad-request"
    assert refused(stack, group="nothing") == "unknown-group"
    assert refused(stack, waves=[{"share": 100, "devices": ["other-1"]}]) == "bad-request"


def test_u3_a_counter_must_rise(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2)
    completed(stack, package_version="2.0.0")
    assert refused(stack) == "conflict"
    assert refused(stack, target_nodes=["node-1"]) == "conflict"


def test_u3_the_same_release_may_be_published_again_once_it_is_not_under_way(stack: ServerStack) -> None:
    tried = stack.publish(target_nodes=["node-1"], update_id="tried")
    stack.tick()
    with pytest.raises(FleetError, match="rolled out to line-1 by tried: wait for it, hold it or recall it first"):
        stack.publish()
    stack.report(tried, "node-1", "committed")
    stack.tick(after_s=301)
    assert stack.rollout(tried).state is RolloutState.COMPLETE
    wider = stack.publish()
    assert [each.id for each in stack.manifest().deployments] == [wider]
    assert stack.job(tried).superseded
    stack.steering.steer(wider, Verb.HOLD)
    assert stack.deployment(stack.publish(waves=[{"share": 100}])).state == "active", "a held one may be replaced"


def test_a_release_that_everybody_has_keeps_its_way_back_when_it_is_published_again(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2)
    completed(stack)
    completed(stack, package_version="2.0.0")
    again = stack.publish(package_version="2.0.0")
    assert stack.job(again).fallback.version == "1.0.0"


def test_u3_other_devices_are_not_in_the_way(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2)
    job = stack.publish(package_version="2.0.0", target_nodes=["node-1"])
    stack.tick()
    stack.report(job, "node-1", "committed")
    stack.tick()
    older = stack.publish(target_nodes=["node-2"])
    with stack.store.read() as reads:
        rollout = reads.rollout(older)
    assert rollout is not None
    assert (rollout.version, rollout.counter) == ("1.0.0", 1)


def test_u3_after_a_recall_the_same_release_may_come_again(stack: ServerStack) -> None:
    first = stack.publish()
    stack.steering.steer(first, Verb.RECALL)
    second = stack.publish()
    assert {stack.deployment(first).state, stack.deployment(second).state} == {"recalled", "active"}


def test_u4_one_rollout_of_a_package_at_a_time(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2)
    job = stack.publish()
    assert refused(stack, package_version="2.0.0") == "conflict"
    stack.steering.steer(job, Verb.HOLD)
    stack.publish(package_version="2.0.0")
    with pytest.raises(FleetError, match="being rolled out"):
        stack.steering.steer(job, Verb.RESUME)


def test_u5_the_same_request_twice_is_one_job(stack: ServerStack) -> None:
    sequence = stack.manifest().sequence
    for _ in range(3):
        assert stack.publish(update_id="monday", description="x", window="22:00-04:00") == "monday"
    assert stack.manifest().sequence == sequence + 1
    stack.tick()
    assert stack.publish(update_id="monday", description="x", window="22:00-04:00") == "monday"
    for change in (
        {"description": "y"},
        {"soak_s": 5},
        {"target_nodes": ["node-1"]},
        {"window": None},
        {"expires_s": 5},
    ):
        asked = {"update_id": "monday", "description": "x", "window": "22:00-04:00"} | change
        assert refused(stack, **asked) == "conflict"


def test_the_fallback_is_what_the_group_was_given_before(stack: ServerStack) -> None:
    stack.pack("web", "2.0.0", 2)
    stack.release("web", "3.0.0", 3)
    completed(stack)
    job = stack.publish(package_version="3.0.0")
    assert (stack.job(job).fallback.version, stack.deployment(job).fallback.counter) == ("1.0.0", 1)


def test_the_fallback_is_what_most_devices_run(stack: ServerStack) -> None:
    stack.pack("web", "2.0.0", 2)
    stack.release("web", "3.0.0", 3)
    for node, version, counter in (("node-1", "1.0.0", 1), ("node-2", "2.0.0", 2), ("node-3", "2.0.0", 2)):
        stack.installed(node, version, counter)
    job = stack.publish(package_version="3.0.0")
    assert stack.job(job).fallback.version == "2.0.0"


def test_nobody_runs_anything_so_there_is_no_fallback(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2)
    assert stack.job(stack.publish(package_version="2.0.0")).fallback is None


def test_a_fallback_that_left_the_catalogue_can_only_come_from_the_other_slot(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2)
    completed(stack)
    job = stack.publish(package_version="2.0.0")
    assert stack.deployment(job).fallback.targets
    editing.remove(stack.desk, "web", "1.0.0", now_s=stack.clock.now_s())
    stack.sign()
    stack.upload()
    assert stack.deployment(job).fallback.version == "1.0.0"
    assert stack.deployment(job).fallback.targets == ()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({}, "either group or target_nodes"),
        ({"group": "g", "target_nodes": ["a"]}, "either group or target_nodes"),
        ({"target_nodes": []}, "names no device"),
        ({"target_nodes": ["a"], "waves": [{"share": 1}]}, "one wave"),
        ({"group": "../etc"}, "not of the form"),
        ({"group": "g", "package_version": "a/b"}, "does not match"),
        ({"group": "g", "window": "25:00-01:00"}, "HH:MM-HH:MM"),
        ({"group": "g", "not_before": "tomorrow"}, "YYYY-MM-DD"),
        ({"group": "g", "expires_s": 0}, "greater than 0"),
        ({"group": "g", "package_url": "file:///etc/passwd"}, "is no address"),
        ({"group": "g", "waves": [{"share": 101}]}, "less than or equal to 100"),
        ({"group": "g", "waves": []}, "at least 1"),
        ({"group": "g", "waves": [{"share": 0}, {"share": 0}]}, "reach nobody"),
        ({"group": "g", "sha256": "x"}, "Extra inputs"),
        ({"group": "g", "failure_rate": float("nan")}, "failure_rate"),
    ],
)
def test_a_request_that_contradicts_itself(members: dict[str, Any], says: str) -> None:
    asked = {"update_type": "files", "package_name": "web", "package_version": "1.0.0"} | members
    with pytest.raises(ValidationError, match=says):
        UpdateRequest.model_validate(asked)


def test_waves_that_shrink_are_refused(stack: ServerStack) -> None:
    assert refused(stack, waves=[{"share": 50}, {"share": 10}]) == "bad-request"


def test_everything_asked_for_reaches_the_manifest(stack: ServerStack) -> None:
    job = stack.publish(
        waves=[{"share": 0.05, "devices": ["node-2"]}, {"share": 100}],
        window="22:30-04:00",
        not_before="2026-01-01T00:00:00Z",
        probation_s=7,
    )
    stack.tick()
    deployment = stack.deployment(job)
    assert (deployment.share_bp, deployment.devices, deployment.probation_s) == (5, ("node-2",), 7)
    assert (deployment.window.start_min, deployment.window.end_min) == (1_350, 240)
    assert deployment.not_before == "2026-01-01T00:00:00Z"


def test_an_end_that_lies_before_the_beginning_is_refused(stack: ServerStack) -> None:
    tomorrow = format_time(stack.clock.now_s() + DAY_S)
    assert refused(stack, not_before=tomorrow, expires_s=3_600) == "bad-request"
    assert stack.publish(not_before=tomorrow, expires_s=2 * DAY_S)


def test_u5_the_same_lifetime_asked_for_again_is_the_same_request(stack: ServerStack) -> None:
    stack.publish(update_id="monday", expires_s=600)
    until_s = stack.rollout("monday").policy.until_s
    stack.clock.ahead_s += 60
    assert stack.publish(update_id="monday", expires_s=600) == "monday"
    assert stack.rollout("monday").policy.until_s == until_s == stack.job("monday").created_s + 600
    assert refused(stack, update_id="monday", expires_s=601) == "conflict"


def test_u3_a_release_whose_deployment_has_expired_may_be_published_again(stack: ServerStack) -> None:
    stack.publish(expires_s=600, waves=[{"share": 100}])
    stack.tick()
    stack.tick(after_s=601)
    again = stack.publish(waves=[{"share": 100}])
    assert stack.deployment(again).state == "active"
    assert refused(stack) == "conflict"
