"""The engine's rules, one by one, by their numbers in `server/domain/engine.py`."""

from dataclasses import replace

import pytest

from server.domain.engine import apply, decide, named_devices, next_share, resume, share_of
from server.domain.rollout import (
    Arm,
    Complete,
    FailureSeen,
    Hold,
    Observations,
    OpenWave,
    Policy,
    Recall,
    Rollout,
    RolloutState,
    Wave,
)

POLICY = Policy(
    waves=(Wave(share_bp=500, devices=("node-1",)), Wave(share_bp=10_000)),
    soak_s=60,
    failure_limit=1,
    failure_rate=0.1,
    silence_s=300,
    silence_limit=2,
    on_failure="recall",
    probation_s=30,
)
FRESH = Rollout(id="d-1", group="line-1", package="svc", version="2", counter=2, policy=POLICY)
OPEN = replace(FRESH, wave=0, wave_opened_s=1_000.0)


NOBODY = Arm()


def seen(of_wave=0, wave=NOBODY, treated=None, control=NOBODY, **more):
    return Observations(of_wave=of_wave, wave=wave, treated=treated or wave, control=control, **more)


NOTHING = seen(of_wave=-1)
PASSED = seen(wave=Arm(devices=10, committed=8))


@pytest.mark.parametrize("state", [RolloutState.RECALLED, RolloutState.COMPLETE])
def test_e1_a_final_rollout_decides_nothing(state):
    terrible = seen(wave=Arm(devices=10, failed=10))
    assert decide(replace(OPEN, state=state), terrible, 9_999) == []


def test_e1_a_held_rollout_can_only_be_recalled():
    held = replace(OPEN, state=RolloutState.HELD)
    assert decide(held, PASSED, 9_999) == []
    assert decide(held, seen(wave=Arm(devices=10, silent=10)), 9_999) == []
    assert isinstance(decide(held, seen(wave=Arm(devices=10, failed=10)), 9_999)[0], Recall)


def test_e2_failures_over_both_limits_recall_with_the_reason():
    evidence = seen(
        wave=Arm(devices=10, committed=5, failed=2), failures=(FailureSeen(device="n", code="unhealthy", detail="500"),)
    )
    (decision,) = decide(OPEN, evidence, 9_999)
    assert isinstance(decision, Recall)
    assert "2 of 7" in decision.reason
    assert "n: unhealthy (500)" in decision.reason


def test_e2_failures_hold_where_the_policy_says_so():
    hold = replace(OPEN, policy=replace(POLICY, on_failure="hold"))
    assert isinstance(decide(hold, seen(wave=Arm(devices=10, failed=2)), 1_001)[0], Hold)


def test_e2_failures_within_the_count_or_the_rate_are_tolerated():
    assert decide(OPEN, seen(wave=Arm(devices=10, failed=1)), 1_001) == []
    assert decide(OPEN, seen(wave=Arm(devices=100, committed=40, failed=4)), 1_001) == []


def test_e3_silence_beyond_the_control_arm_holds_and_never_recalls():
    evidence = seen(wave=Arm(devices=10, silent=5), control=Arm(devices=90, silent=9))
    (decision,) = decide(OPEN, evidence, 9_999)
    assert isinstance(decision, Hold)


def test_e3_an_outage_that_hits_both_arms_holds_nothing():
    evidence = seen(wave=Arm(devices=10, silent=5), control=Arm(devices=90, silent=45))
    assert decide(OPEN, evidence, 9_999) == []


def test_e4_silent_devices_do_not_pass_a_wave():
    evidence = seen(wave=Arm(devices=2, silent=2), control=Arm(devices=2, silent=2))
    assert decide(OPEN, evidence, 9_999) == []


@pytest.mark.parametrize(("committed", "now_s", "opens"), [(8, 1_060, True), (7, 9_999, False), (10, 1_059, False)])
def test_e5_a_wave_opens_after_soak_and_evidence(committed, now_s, opens):
    decisions = decide(OPEN, seen(wave=Arm(devices=10, committed=committed)), now_s)
    assert decisions == ([OpenWave(index=1, share_bp=10_000)] if opens else [])


def test_e5_one_commit_is_needed_even_at_a_success_rate_of_zero():
    lax = replace(OPEN, policy=replace(POLICY, success_rate=0.0))
    assert decide(lax, seen(wave=Arm(devices=5)), 9_999) == []


def test_e5_a_wave_without_devices_passes_by_its_soak():
    assert decide(OPEN, seen(), 1_059) == []
    assert decide(OPEN, seen(), 1_060) == [OpenWave(index=1, share_bp=10_000)]


def test_e5_the_first_wave_needs_no_evidence():
    assert decide(FRESH, NOTHING, 0) == [OpenWave(index=0, share_bp=500)]


def test_e6_advance_opens_one_wave_without_evidence():
    asked = replace(OPEN, advance=True)
    (decision,) = decide(asked, seen(wave=Arm(devices=10)), 1_001)
    assert decision == OpenWave(index=1, share_bp=10_000)
    assert not apply(asked, decision, 1_001).advance


def test_e6_advance_does_not_overrule_failures():
    asked = replace(OPEN, advance=True)
    assert isinstance(decide(asked, seen(wave=Arm(devices=10, failed=9)), 1_001)[0], Recall)


def test_e6_advance_does_not_complete_an_unproven_last_wave():
    last = replace(OPEN, wave=1, advance=True)
    assert decide(last, seen(of_wave=1, wave=Arm(devices=10)), 9_999) == []


def test_e7_the_last_wave_completes():
    last = replace(OPEN, wave=1)
    assert decide(last, seen(of_wave=1, wave=Arm(devices=10, committed=9)), 9_999) == [Complete()]


def test_e8_evidence_of_another_wave_opens_nothing():
    reopened = apply(OPEN, OpenWave(index=1, share_bp=10_000), 2_000)
    impatient = replace(reopened, policy=replace(POLICY, soak_s=0))
    assert decide(impatient, PASSED, 2_000) == []


def test_e8_applying_twice_is_applying_once():
    once = apply(OPEN, OpenWave(index=1, share_bp=10_000), 2_000)
    assert apply(once, OpenWave(index=1, share_bp=10_000), 3_000) == once


def test_e9_resuming_excuses_what_was_seen_and_only_that():
    evidence = seen(wave=Arm(devices=10, failed=2, silent=4))
    held = replace(OPEN, state=RolloutState.HELD, reason="x")
    resumed = resume(held, evidence)
    assert resumed.state is RolloutState.ACTIVE
    assert decide(resumed, evidence, 1_001) == []
    worse = seen(wave=Arm(devices=10, failed=4, silent=4))
    assert isinstance(decide(resumed, worse, 1_001)[0], Recall)


def test_e9_resuming_what_is_not_held_changes_nothing():
    assert resume(OPEN, PASSED) == OPEN


def test_e10_an_expired_rollout_opens_no_wave_and_is_held():
    ending = replace(OPEN, policy=replace(POLICY, until_s=5_000.0))
    assert decide(ending, PASSED, 4_999) == [OpenWave(index=1, share_bp=10_000)]
    for rollout in (ending, replace(ending, advance=True), replace(ending, wave=-1, wave_opened_s=None)):
        (decision,) = decide(rollout, PASSED, 5_000)
        assert decision == Hold(reason="expired at 1970-01-01T01:23:20Z: no device begins any more")
        assert decide(apply(rollout, decision, 5_000), PASSED, 5_001) == []


def test_e10_failures_speak_before_the_time_and_a_last_wave_that_passed_is_complete():
    ending = replace(OPEN, policy=replace(POLICY, until_s=5_000.0))
    assert isinstance(decide(ending, seen(wave=Arm(devices=10, failed=9)), 6_000)[0], Recall)
    passed = seen(of_wave=1, wave=Arm(devices=10, committed=9))
    assert decide(replace(ending, wave=1), passed, 6_000) == [Complete()]


def waves(*shares):
    return replace(FRESH, policy=replace(POLICY, waves=tuple(Wave(share_bp=share) for share in shares)))


@pytest.mark.parametrize(
    ("asked", "wave", "evidence", "share_bp"),
    [
        ((100, 10_000), -1, {"lowest_left": 2_717}, 2_718),
        ((100, 10_000), -1, {"lowest_left": 99}, 100),
        ((100, 10_000), -1, {"lowest_left": 100}, 101),
        ((100, 10_000), -1, {"lowest_left": 2_717, "next_named": 1}, 100),
        ((100, 10_000), -1, {}, 100),
        ((100, 200), 0, {"lowest_left": 9_999}, 10_000),
        ((100, 100), 0, {"lowest_left": 9_999}, 100),
        ((0, 10_000), -1, {"lowest_left": 0}, 0),
    ],
)
def test_e11_a_wave_takes_one_more_device_where_its_share_holds_none(asked, wave, evidence, share_bp):
    """Not where it names one who is left, where nobody is, or where it asks for no more than the one before."""
    rollout = replace(waves(*asked), wave=wave, wave_opened_s=None if wave < 0 else 0.0)
    (decision,) = decide(rollout, seen(of_wave=wave, **evidence), 1_000)
    assert decision == OpenWave(index=wave + 1, share_bp=share_bp)


def test_e11_a_share_that_was_raised_stays_whatever_comes_later():
    first = apply(waves(100, 200, 10_000), OpenWave(index=0, share_bp=2_718), 1_000)
    assert (share_of(first), first.shares) == (2_718, (2_718,))
    second = apply(first, OpenWave(index=1, share_bp=next_share(first, 5_000, 0)), 2_000)
    assert (share_of(second), share_of(second, 0), second.shares) == (5_001, 2_718, (2_718, 5_001))
    assert next_share(first, 150, 0) == 2_718, "a device that joined below the share is in already"
    assert next_share(first, None, 0) == 2_718


def test_e11_a_rollout_that_began_before_shares_were_kept_goes_on_with_its_policys():
    began = replace(waves(500, 2_500, 10_000), wave=0, wave_opened_s=0.0)
    assert (share_of(began), share_of(began, 1), share_of(began, -1)) == (500, 2_500, 0)
    assert apply(began, OpenWave(index=1, share_bp=4_000), 1_000).shares == (500, 4_000)


def test_the_share_and_the_names_are_those_of_all_open_waves():
    assert (share_of(FRESH), named_devices(FRESH)) == (0, ())
    assert (share_of(OPEN), named_devices(OPEN)) == (500, ("node-1",))
    assert named_devices(replace(OPEN, wave=1)) == ("node-1",)


def test_e3_with_nobody_to_compare_with_every_silent_device_counts():
    full = replace(OPEN, wave=1)
    within, beyond = (seen(of_wave=1, wave=Arm(devices=10, silent=silent)) for silent in (2, 3))
    assert decide(full, within, 1_001) == []
    (decision,) = decide(full, beyond, 1_001)
    assert decision == Hold(reason="3 of 10 selected devices are silent, against 0 of 0 not selected")


def test_e2_a_share_of_failures_at_the_rate_is_tolerated():
    evidence = seen(wave=Arm(devices=100, committed=27, failed=3))
    assert decide(OPEN, evidence, 1_001) == []


def test_e5_one_commit_is_enough_for_a_wave_of_one():
    assert decide(OPEN, seen(wave=Arm(devices=1, committed=1)), 9_999) == [OpenWave(index=1, share_bp=10_000)]


def test_e5_a_wave_whose_opening_nobody_knows_has_not_soaked():
    assert decide(replace(OPEN, wave_opened_s=None), PASSED, 9_999) == []


@pytest.mark.parametrize(
    ("decision", "state", "reason"),
    [
        (Hold(reason="x"), RolloutState.HELD, "x"),
        (Recall(reason="y"), RolloutState.RECALLED, "y"),
        (Complete(), RolloutState.COMPLETE, ""),
    ],
)
def test_e6_whatever_ends_a_wave_ends_the_wish_to_advance(decision, state, reason):
    asked = replace(OPEN, advance=True, reason="as before")
    once = apply(asked, decision, 2_000)
    assert once == replace(OPEN, state=state, reason=reason)
    assert apply(once, decision, 3_000) == once, "E8"


def test_e5_the_soak_begins_with_the_opening():
    assert apply(OPEN, OpenWave(index=1, share_bp=10_000), 2_000).wave_opened_s == 2_000
