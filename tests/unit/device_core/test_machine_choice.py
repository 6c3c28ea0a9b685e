"""What the machine chooses, and why it does nothing: rules R3 to R6, R17, R23, R26, R27.

R26 and R27 carry invariant D17.
"""

from dataclasses import replace

import pytest

from device_agent.core.effects import Activate, Fetch
from device_agent.core.events import Accepted, Assigned, Started, Ticked
from device_agent.core.plan import PlannedRelease
from fleet_protocol.install import Driver
from fleet_protocol.manifest import Window, bucket
from tests.unit.device_core.plans import DEVICE, PACKAGE, WALL_S, Bench, deployment, plan, release


def test_r5_the_highest_counter_that_may_begin_is_installed() -> None:
    bench = Bench()
    assert bench.accept(1, deployment(11), deployment(13, state="held"), deployment(12)) == (Fetch(),)
    assert bench.attempt.release.counter == 12
    assert (bench.attempt.slot, bench.attempt.previous, bench.attempt.purpose) == ("a", None, "install")
    assert bench.record.why == "downloading my-service 1.12.0"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"state": "held"}, "held"),
        ({"state": "recalled"}, "recalled"),
        ({"refusal": "class"}, "class"),
        ({"share_bp": 0}, f"in no wave yet: bucket {bucket('6f2c9e01', DEVICE)} >= share 0"),
        ({"not_before_s": WALL_S + 90}, "not before 2027-01-15T08:01:30Z"),
        ({"window": Window(start_min=540, end_min=600)}, "window"),
    ],
)
def test_r5_why_nothing_is_installed(changes: dict[str, object], why: str) -> None:
    bench = Bench()
    assert bench.accept(1, deployment(12, **changes)) == ()
    assert (bench.record.stage, bench.record.why) == ("idle", why)


def test_r5_a_named_device_takes_part_whatever_the_share() -> None:
    assert Bench().accept(1, deployment(12, share_bp=0, devices=("node-1",))) == (Fetch(),)


def test_r5_several_packages_say_which_reason_is_whose() -> None:
    bench = Bench()
    bench.accept(1, deployment(12, state="held"), deployment(3, package="driver", refusal="class"))
    assert bench.record.why == "my-service: held; driver: class"


def test_r5_without_group_or_manifest_the_device_says_so() -> None:
    bench = Bench(assigned=False)
    bench.send(Ticked)
    assert bench.record.why == "no group yet"
    bench.send(Assigned, group="line-1")
    bench.send(Ticked)
    assert bench.record.why == "no manifest yet"


def test_r5_a_closed_window_wakes_the_machine_when_it_opens() -> None:
    bench = Bench()
    bench.accept(1, deployment(12, window=Window(start_min=8 * 60 + 5, end_min=600)))
    assert bench.record.wake_s == bench.mono_s + 300
    assert bench.wait(300) == (Fetch(),)


def test_r5_a_far_window_is_looked_at_again_in_between() -> None:
    bench = Bench()
    bench.accept(1, deployment(12, not_before_s=WALL_S + 86_400))
    assert bench.record.wake_s == bench.mono_s + 900


def test_r5_an_expired_manifest_installs_nothing() -> None:
    bench = Bench()
    assert bench.accept(1, deployment(12), expires_s=WALL_S) == ()
    assert bench.record.why == "the manifest has expired"


def test_r5_up_to_date() -> None:
    bench = Bench()
    bench.install(1, deployment(12))
    assert bench.record.why == "up to date"
    assert bench.record.wake_s is None


def test_r6_an_older_release_is_not_installed() -> None:
    bench = Bench()
    bench.install(1, deployment(12))
    assert bench.accept(2, deployment(11)) == ()
    assert bench.record.why == "up to date"


def test_r5_a_recall_switches_to_the_other_slot_without_a_download() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    assert bench.accept(3, deployment(12, state="recalled", fallback=release(11))) == (Activate(),)
    assert (bench.attempt.purpose, bench.attempt.slot, bench.attempt.previous) == ("recall", "a", "b")


def test_r5_a_recall_downloads_a_fallback_that_no_slot_holds() -> None:
    bench = Bench()
    bench.install(1, deployment(12))
    assert bench.accept(2, deployment(12, state="recalled", fallback=release(10))) == (Fetch(),)
    bench.to("probation")
    bench.prove()
    content = bench.record.packages[PACKAGE].content(bench.record.packages[PACKAGE].active)
    assert content is not None and content.release.counter == 10
    assert bench.wait(0) == ()


def test_r5_a_recall_without_a_fallback_says_so() -> None:
    bench = Bench()
    bench.install(1, deployment(12))
    assert bench.accept(2, deployment(12, state="recalled")) == ()
    assert bench.record.why == "recalled, nothing to go back to"


def test_r6_no_recall_below_the_floor() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    recalled = deployment(12, state="recalled", fallback=release(11))
    assert bench.accept(3, recalled, floors={PACKAGE: 12}) == ()
    assert bench.record.why == "recalled, nothing to go back to"


def test_r5_a_recall_of_what_is_not_installed_changes_nothing() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    assert bench.accept(2, deployment(12, state="recalled", fallback=release(11))) == ()
    assert bench.record.why == "recalled"


def test_r3_a_lower_sequence_is_ignored() -> None:
    bench = Bench()
    bench.accept(5, deployment(12, state="held"))
    before = bench.record
    assert bench.accept(4, deployment(12)) == ()
    assert bench.record == before
    assert bench.effects == ()


def test_r3_the_same_sequence_with_other_bytes_is_ignored() -> None:
    bench = Bench()
    bench.accept(5, deployment(12, state="held"))
    before = bench.record
    bench.accept(5, deployment(12), digest="0" * 64)
    assert bench.record == before


def test_r3_the_same_manifest_under_a_newer_catalogue_is_looked_at_again() -> None:
    bench = Bench()
    unlisted = plan(5, deployment(12, refusal="unlisted"))
    bench.send(Accepted, plan=unlisted)
    assert bench.record.why == "unlisted"
    assert bench.send(Accepted, plan=replace(unlisted, deployments=(deployment(12),))) == (Fetch(),)


def test_r3_another_groups_plan_is_ignored() -> None:
    bench = Bench()
    before = bench.record
    assert bench.accept(1, deployment(12), group="line-2") == ()
    assert bench.record == before


def test_r3_the_same_plan_twice_changes_nothing() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    before = bench.record
    bench.accept(1, deployment(12))
    assert bench.record == before
    assert bench.effects == ()


def test_r4_a_new_group_is_a_new_sequence_space() -> None:
    bench = Bench()
    bench.accept(57, deployment(12))
    bench.send(Assigned, group="line-2")
    assert (bench.record.stage, bench.record.obeyed, bench.record.plan) == ("idle", 0, None)
    outcomes = [(attempt.outcome, attempt.detail) for attempt in bench.reports if attempt is not None]
    assert outcomes == [("abandoned", "moved to group line-2")]
    assert bench.accept(1, deployment(12), group="line-2") == (Fetch(),)


def test_r4_the_same_group_again_changes_nothing() -> None:
    bench = Bench()
    bench.accept(57, deployment(12))
    before = bench.record
    bench.send(Assigned, group="line-1")
    assert bench.record == before


def test_r4_an_attempt_that_has_switched_goes_on_in_the_new_group() -> None:
    bench = Bench()
    bench.accept(57, deployment(12))
    bench.to("probation")
    bench.send(Assigned, group="line-2")
    assert bench.record.stage == "probation"
    bench.prove()
    assert bench.record.packages[PACKAGE].active == "a"


def test_r17_a_failed_deployment_is_not_tried_again_until_told() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.roll_back()
    assert bench.wait(10_000) == ()
    assert bench.record.why == "failed before: unhealthy"
    assert bench.accept(2, deployment(12, share_bp=9_000)) == ()
    bench.command("retry")
    assert bench.wait(0) == (Fetch(),)
    assert bench.attempt.number == 2


def test_r17_a_new_deployment_of_the_same_release_is_tried() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.roll_back()
    assert bench.accept(2, deployment(12, "d-again")) == (Fetch(),)


def test_r17_a_transient_failure_is_tried_three_times_and_no_more() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    numbers = []
    for _ in range(3):
        bench.to("installing")
        numbers.append(bench.attempt.number)
        bench.fail("no-space")
        assert bench.wait(0) == ()
        assert bench.record.why == "failed before: no-space"
        bench.wait(3_600)
    assert numbers == [1, 2, 3]
    assert (bench.record.stage, bench.record.wake_s) == ("idle", None)


def test_r17_a_failed_recall_is_tried_again() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.accept(3, deployment(12, state="recalled", fallback=release(11)))
    bench.roll_back()
    assert bench.record.why == "my-service 1.11.0: failed"
    bench.wait(0)
    assert bench.record.why == "recalled, failed before: unhealthy"
    assert bench.wait(3_600) == (Fetch(),), "the other slot is gone, so that the fallback is downloaded"


def test_r23_a_deployment_of_what_is_installed_is_adopted_once() -> None:
    bench = Bench()
    bench.install(1, deployment(12))
    again = deployment(12, "d-again")
    assert bench.accept(2, deployment(12), again) == ()
    adopted = [(attempt.deployment, attempt.outcome) for attempt in bench.reports if attempt is not None]
    assert adopted == [("d-again", "committed")]
    before = bench.record
    bench.wait(60)
    assert bench.record == before
    recalled = deployment(12, "d-again", state="recalled", fallback=release(11))
    assert bench.accept(3, deployment(12), recalled) == (Fetch(),)
    bench.to("probation")
    bench.prove()
    bench.wait(0)
    assert bench.record.why == "failed before: withdrawn", "R18: the older deployment does not bring it back"


def _driver(counter: int, *kernels: str) -> PlannedRelease:
    found = release(counter, "my-driver", check=False)
    driver = Driver(module="my_driver", kernels=kernels, load=True)
    install = replace(found.targets[0].install, exec=(), driver=driver)
    return replace(found, targets=(replace(found.targets[0], kind="driver", install=install),))


def test_r26_a_driver_for_another_kernel_is_not_begun() -> None:
    bench = Bench()
    bench.send(Started, kernel="6.1.0-31-arm64")
    other = deployment(12, "d-1", release=_driver(12, "6.1.0-30-arm64"))
    assert bench.accept(1, other) == ()
    assert bench.record.why == "kernel: my_driver is not built for 6.1.0-31-arm64"
    assert bench.record.failures == {}
    fitting = deployment(13, "d-2", release=_driver(13, "6.1.0-30-arm64", "6.1.0-31-arm64"))
    assert bench.accept(2, fitting) == (Fetch(),)


def test_r26_an_attempt_is_given_up_where_another_kernel_was_booted() -> None:
    bench = Bench()
    bench.send(Started, kernel="6.1.0-30-arm64")
    bench.accept(1, deployment(12, "d-1", release=_driver(12, "6.1.0-30-arm64")))
    bench.send(Started, kernel="6.1.0-31-arm64")
    assert bench.record.stage == "idle"
    (outcome,) = [(a.outcome, a.code) for a in bench.reports if a is not None and a.outcome is not None]
    assert outcome == ("abandoned", "kernel")


def test_r26_a_recall_does_not_go_back_to_a_driver_for_another_kernel() -> None:
    bench = Bench()
    bench.send(Started, kernel="6.1.0-31-arm64")
    both = _driver(12, "6.1.0-30-arm64", "6.1.0-31-arm64")
    bench.install(1, deployment(12, "d-1", release=both))
    old = _driver(11, "6.1.0-30-arm64")
    recalled = deployment(12, "d-1", release=both, state="recalled", fallback=old)
    assert bench.accept(2, recalled) == ()
    assert bench.record.why == "recalled, but kernel: my_driver is not built for 6.1.0-31-arm64"


@pytest.mark.parametrize("accepted", [False, True])
def test_r27_an_attempt_says_whether_a_way_back_is_needed(accepted: bool) -> None:
    bench = Bench()
    bench.accept(1, deployment(12, irreversible=accepted))
    assert bench.attempt.irreversible is accepted


def test_r27_want_of_a_way_back_is_forgiven_once_the_operator_needs_none() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.to("installing")
    bench.fail("no-way-back")
    assert bench.wait(10_000) == ()
    assert bench.record.why == "failed before: no-way-back"
    assert bench.accept(2, deployment(12, irreversible=True)) == (Fetch(),)
    assert bench.attempt.number == 2
    bench.to("installing")
    bench.fail("dependencies")
    assert bench.wait(10_000) == ()
    assert bench.record.why == "failed before: dependencies"
