"""The rules where two attempts, two packages or two plans meet: nothing of the one is taken for the other's."""

import pytest

from device_agent.core.effects import Activate, Cancel, Check, Fetch, Reply
from device_agent.core.events import Assigned, Checked
from device_agent.core.machine import initial
from device_agent.core.reports import installed
from tests.unit.device_core.plans import DEVICE, PACKAGE, Bench, deployment, release


def test_r3_a_device_that_was_never_started_obeys_nothing() -> None:
    record = initial(DEVICE)
    assert (record.obeyed, record.group, record.plan, record.why) == (0, None, None, "no group yet")
    bench = Bench(assigned=False)
    bench.send(Assigned, group="line-1")
    assert bench.record.report_counter == 1


def test_r2_nothing_of_an_attempt_outlives_it() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    fresh = Bench().record
    for name in ("attempt", "retries", "unhealthy", "healthy", "probation_until_s", "check_s", "wake_s"):
        assert getattr(bench.record, name) == getattr(fresh, name), name


def test_r7_new_mirrors_of_a_fallback_are_learnt_too() -> None:
    bench = Bench()
    bench.install(1, deployment(12))
    bench.accept(2, deployment(12, state="recalled", fallback=release(10)))
    mirrored = release(10, urls=("https://mirror.example/x",))
    assert bench.accept(3, deployment(12, state="recalled", fallback=mirrored)) == ()
    assert (bench.record.stage, bench.attempt.release) == ("downloading", mirrored)


def test_r10_a_slot_that_is_known_to_be_bad_is_not_switched_to() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to("switching")
    bench.fail("start")
    bench.fail("altered")
    assert bench.command("rollback") == (
        Reply(id="c-1", code="no-fallback", detail="no other slot holds a good release"),
    )


def test_r17_a_recall_saves_a_device_that_could_not_go_back() -> None:
    """It runs what failed: the recall brings it a fallback, however often the release itself was tried."""
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to("switching")
    bench.fail("start")
    bench.fail("altered")
    recalled = deployment(12, state="recalled", fallback=release(11))
    assert bench.accept(3, recalled) == (Fetch(),), "and not Activate: the other slot is not whole"
    for _ in range(2):
        bench.fail("digest")
        assert bench.wait(3_600) == (Fetch(),)
    bench.fail("digest")
    assert bench.wait(100_000) == (), "three tries of the recall, apart from the one of the release"
    assert bench.record.why.startswith("recalled, failed before: digest; ")
    bench.command("retry", id="c-2")
    assert bench.wait(0) == (Fetch(),)
    bench.to("probation")
    bench.prove()
    assert [row.version for row in installed(bench.record)] == ["1.11.0"]
    assert bench.accept(4, deployment(12)) == ()
    assert bench.record.why == "failed before: withdrawn"


def test_r13_a_package_that_is_not_installed_is_in_no_report() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.roll_back()
    assert PACKAGE in bench.record.packages
    assert installed(bench.record) == ()


def test_r15_the_machine_is_awake_when_the_probation_ends() -> None:
    """R25: the last check does not have to be waited for where one has passed already."""
    bench = Bench()
    bench.accept(1, deployment(12, probation_s=15))
    bench.to("probation")
    end_s = bench.mono_s + 15
    assert bench.wait(10) == (Check(),)
    bench.end(Checked, code=None, detail="")
    assert bench.record.wake_s == end_s
    bench.wait(5)
    assert bench.record.stage == "idle"


def test_r17_a_success_wipes_out_the_failures_before_it() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.roll_back()
    bench.command("retry")
    bench.wait(0)
    bench.to("probation")
    bench.prove()
    assert bench.record.failures == {}


def test_r18_a_recall_leaves_other_packages_and_other_releases_alone() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    others = (deployment(13, state="held"), deployment(5, package="driver", state="held"))
    bench.accept(3, deployment(12, state="recalled", fallback=release(11)), *others)
    bench.to("probation")
    bench.prove()
    assert bench.record.failures.keys() == {deployment(12).id}


def test_r20_a_retry_and_a_rollback_wake_an_idle_machine_at_once() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    for number, name in enumerate(("retry", "rollback")):
        bench.mono_s += 100
        bench.command(name, id=f"c-{number}")
        assert bench.record.wake_s == bench.mono_s


def test_r20_a_rollback_of_one_package_waits_for_another_ones_attempt() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.accept(3, deployment(12), deployment(5, package="driver"))
    bench.to("probation")
    wake_s = bench.record.wake_s
    bench.command("rollback", PACKAGE)
    assert (bench.record.stage, bench.attempt.release.package) == ("probation", "driver")
    assert bench.record.wake_s == wake_s
    bench.prove()
    assert bench.wait(0) == (Activate(),)
    assert (bench.attempt.purpose, bench.attempt.release.package) == ("rollback", PACKAGE)


@pytest.mark.parametrize("stage", ["downloading", "installing"])
def test_r20_a_rollback_does_not_wait_for_another_packages_download(stage: str) -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.accept(3, deployment(12), deployment(5, package="driver"))
    bench.to(stage)
    assert Cancel() in bench.command("rollback", PACKAGE)
    assert bench.wait(0) == (Activate(),)
    assert (bench.attempt.purpose, bench.attempt.release.package) == ("rollback", PACKAGE)
    bench.to("probation")
    bench.prove()
    assert bench.wait(0) == (Fetch(),), "then the other one begins again"


def test_r20_a_rollback_that_has_become_impossible_is_forgotten() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.install(2, deployment(12))
    bench.command("rollback")
    bench.accept(3, deployment(12), floors={PACKAGE: 12})
    assert (bench.record.stage, bench.record.rollbacks) == ("idle", {})
    bench.accept(4, deployment(12))
    assert bench.wait(60) == ()


def test_r22_a_refusal_that_nobody_knows_is_reported_under_a_code_that_somebody_does() -> None:
    bench = Bench()
    bench.accept(1, deployment(12, refusal="of-a-newer-agent"))
    assert [report and report.code for report in bench.reports] == ["schema"]
    assert bench.record.attacks == {"schema": 1}


def test_r23_what_failed_here_is_not_adopted() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.roll_back()
    again = deployment(12, "d-again")
    bench.install(2, again)
    bench.accept(3, deployment(12), again)
    assert [report and report.outcome for report in bench.reports] == [None]


def test_r23_a_release_that_is_known_to_be_bad_is_not_adopted() -> None:
    bench = Bench()
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to("switching")
    bench.fail("start")
    bench.fail("altered")
    bench.accept(3, deployment(12, "d-again"))
    assert [report and report.outcome for report in bench.reports] == [None]
    assert bench.record.why == "running a release that failed: going back was not possible"


def test_r24_what_was_adopted_is_forgotten_with_the_plan_that_named_it() -> None:
    bench = Bench()
    bench.install(1, deployment(12))
    bench.accept(2, deployment(12), deployment(12, "d-again"))
    assert bench.record.adopted == ("d-my-service-12", "d-again")
    bench.accept(3, deployment(12, "d-again"))
    assert bench.record.adopted == ("d-again",)
    bench.accept(4)
    assert bench.record.adopted == ()


def test_r11_the_pause_of_one_download_does_not_hold_up_the_next() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.fail("unreachable")
    bench.accept(2, deployment(13))
    assert bench.wait(0) == (Fetch(),)
    assert (bench.record.retries, bench.record.wake_s) == (0, None)
