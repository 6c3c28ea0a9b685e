"""What a rollout may be told to do, what a fresh one knows, and the words that the API and the database hold."""

from dataclasses import replace

import pytest

from fleet_protocol.errors import PolicyError
from server.domain.fleet import Device, Group
from server.domain.rollout import Arm, Policy, Rollout, RolloutState, Wave
from server.domain.verbs import Verb, after

POLICY = Policy(
    waves=(Wave(share_bp=0, devices=("node-1",)), Wave(share_bp=10_000)),
    soak_s=0,
    failure_limit=0,
    failure_rate=0,
    silence_s=0,
    silence_limit=0,
    on_failure="recall",
    probation_s=0,
)


def refused(**changes: object) -> str:
    with pytest.raises(PolicyError) as caught:
        replace(POLICY, **changes)
    assert caught.value.code == "bad-request"
    return caught.value.detail


@pytest.mark.parametrize("share_bp", [-1, 10_001])
def test_a_share_lies_between_nobody_and_everybody(share_bp: int) -> None:
    with pytest.raises(PolicyError) as caught:
        Wave(share_bp=share_bp)
    assert caught.value.code == "bad-request"


@pytest.mark.parametrize("shares", [(), (500, 499), (10_000, 0)])
def test_waves_are_there_and_never_narrow(shares: tuple[int, ...]) -> None:
    assert "waves" in refused(waves=tuple(Wave(share_bp=share) for share in shares))


def test_waves_may_be_as_wide_as_the_one_before() -> None:
    assert replace(POLICY, waves=(Wave(share_bp=0), Wave(share_bp=0))).waves


@pytest.mark.parametrize("name", ["soak_s", "silence_s", "failure_limit", "silence_limit", "probation_s"])
def test_no_limit_is_negative(name: str) -> None:
    assert "negative" in refused(**{name: -1})


@pytest.mark.parametrize("name", ["failure_rate", "success_rate"])
def test_a_rate_is_a_share(name: str) -> None:
    for rate in (-0.001, 1.001):
        assert name in refused(**{name: rate})
    for rate in (0, 1):
        assert getattr(replace(POLICY, **{name: rate}), name) == rate


def test_a_fresh_rollout_has_opened_and_excused_nothing() -> None:
    fresh = Rollout(id="d-1", group="g", package="p", version="1", counter=1, policy=POLICY)
    assert (fresh.state, fresh.wave, fresh.wave_opened_s, fresh.advance) == (RolloutState.ACTIVE, -1, None, False)
    assert (fresh.reason, fresh.excused_failures, fresh.excused_silent) == ("", 0, 0)
    assert (Arm().devices, Arm().committed, Arm().failed, Arm().silent) == (0, 0, 0, 0)


def test_a_device_that_was_just_enrolled_has_said_nothing() -> None:
    device = Device(id="node-1", group="g", device_class="x", key_id="k", public_key={}, enrolled_s=1.0)
    assert (device.available, device.seen_s, device.boot, device.report_counter) == (False, None, None, 0)
    assert (device.sequence, device.root, device.stage, device.installed, device.attacks) == (0, 0, None, (), {})
    assert Group(name="g").sequence == 0


def test_the_words_of_the_api_and_the_database() -> None:
    assert list(RolloutState) == ["active", "held", "recalled", "complete"]
    assert list(Verb) == ["open-wave", "hold", "resume", "advance", "recall", "retry", "complete"]


@pytest.mark.parametrize(
    ("state", "verb", "hint"),
    [
        (RolloutState.HELD, Verb.ADVANCE, "(possible: resume, recall, retry)"),
        (RolloutState.ACTIVE, Verb.RESUME, "(possible: hold, advance, recall, retry)"),
        (RolloutState.COMPLETE, Verb.HOLD, "(possible: recall, retry)"),
        (RolloutState.RECALLED, Verb.RECALL, "(nothing is possible any more; publish a new release)"),
    ],
)
def test_a_refused_verb_says_what_is_possible(state: RolloutState, verb: Verb, hint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        after(state, verb)
    assert caught.value.detail == f"a rollout that is {state} can not take '{verb}' {hint}"
