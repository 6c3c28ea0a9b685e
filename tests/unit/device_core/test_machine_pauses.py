"""What the device's owner has to say of how long the machine waits: rules R11, R14, R15 and R17."""

from device_agent.core.effects import Check, Fetch, Revert
from device_agent.core.events import Checked
from device_agent.core.record import Pauses
from tests.unit.device_core.plans import Bench, deployment


def test_r11_the_owner_bounds_the_machines_pauses_and_not_the_peers_wish() -> None:
    bench = Bench()
    bench.restart(Pauses(retry_most_s=30.0))
    bench.accept(1, deployment(12))
    bench.luck = 0.999
    for _ in range(12):
        bench.fail("unreachable")
        assert bench.record.wake_s is not None
        pause_s = bench.record.wake_s - bench.mono_s
        assert bench.wait(pause_s) == (Fetch(),)
    assert 29 < pause_s <= 30
    bench.luck = 0.5
    bench.fail("unreachable")
    assert bench.record.wake_s == bench.mono_s + 15, "the jitter is over the whole of what is left"
    bench.wait(15)
    bench.fail("busy", retry_after_s=120.0)
    assert bench.record.wake_s == bench.mono_s + 135


def test_r14_the_owner_bounds_the_pauses_of_going_back() -> None:
    bench = Bench()
    bench.restart(Pauses(retry_most_s=0.5))
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12))
    bench.to("switching")
    bench.fail("start")
    for _ in range(20):
        assert bench.fail("io") == ()
        assert bench.wait(0.5) == (Revert(),)


def test_r15_the_owner_may_have_checks_less_often_than_the_release_asks() -> None:
    bench = Bench()
    bench.restart(Pauses(check_least_s=25.0))
    bench.accept(1, deployment(12))
    bench.to("probation")
    for code in ("unhealthy", None):
        assert bench.wait(24.9) == ()
        assert bench.wait(0.1) == (Check(),)
        bench.end(Checked, code=code, detail="")
    bench.wait(10)
    assert bench.record.stage == "idle", "the probation's own end waits for no further check"


def test_r15_the_owner_does_not_have_checks_more_often_than_the_release_asks() -> None:
    bench = Bench()
    bench.restart(Pauses(check_least_s=2.0))
    bench.accept(1, deployment(12))
    bench.to("probation")
    assert bench.wait(9.9) == ()
    assert bench.wait(0.1) == (Check(),)


def test_r15_rare_checks_do_not_put_off_the_first_beyond_the_probation() -> None:
    bench = Bench()
    bench.restart(Pauses(check_least_s=3_600.0))
    bench.accept(1, deployment(12))
    bench.to("probation")
    assert bench.wait(60) == (Check(),)
    bench.end(Checked, code=None, detail="")
    assert bench.record.stage == "idle"


def test_r17_the_owner_bounds_the_pause_before_another_attempt() -> None:
    bench = Bench()
    bench.restart(Pauses(retry_most_s=10.0))
    bench.accept(1, deployment(12))
    bench.luck = 0.999
    bench.fail("io")
    assert bench.wait(10) == (Fetch(),)


def test_r17_other_settings_hold_for_a_pause_that_was_under_way() -> None:
    bench = Bench()
    bench.accept(1, deployment(12))
    bench.luck = 0.999
    bench.fail("io")
    bench.restart(Pauses(retry_most_s=10.0))
    assert bench.wait(10) == (Fetch(),)
    bench.fail("io")
    bench.restart()
    assert bench.wait(10) == (), "the default pause again"
