"""The table of rollout states: it agrees with the engine, and says no in words."""

from dataclasses import replace

import pytest

from fleet_protocol.errors import PolicyError
from server.domain.engine import apply, resume
from server.domain.rollout import (
    Arm,
    Complete,
    Hold,
    Observations,
    OpenWave,
    Policy,
    Recall,
    Rollout,
    RolloutState,
    Wave,
)
from server.domain.verbs import OPERATOR_VERBS, TRANSITIONS, Verb, after

POLICY = Policy(
    waves=(Wave(share_bp=10_000),),
    soak_s=0,
    failure_limit=0,
    failure_rate=0,
    silence_s=60,
    silence_limit=0,
    on_failure="recall",
    probation_s=5,
)
SEEN = Observations(of_wave=0, wave=Arm(), treated=Arm(), control=Arm())
DECISIONS = {
    Verb.OPEN_WAVE: OpenWave(index=0, share_bp=500),
    Verb.HOLD: Hold(reason="x"),
    Verb.RECALL: Recall(reason="x"),
    Verb.COMPLETE: Complete(),
}


@pytest.mark.parametrize(("state", "verb"), TRANSITIONS)
def test_the_engine_moves_as_the_table_says(state, verb):
    rollout = Rollout(id="d-1", group="g", package="p", version="1", counter=1, policy=POLICY, state=state)
    if verb is Verb.RESUME:
        assert resume(rollout, SEEN).state is after(state, verb)
    elif verb in DECISIONS:
        assert apply(rollout, DECISIONS[verb], 1.0).state is after(state, verb)
    else:
        assert after(state, verb) is replace(rollout, advance=True).state


@pytest.mark.parametrize("state", RolloutState)
@pytest.mark.parametrize("verb", Verb)
def test_every_pair_has_an_answer(state, verb):
    if (state, verb) in TRANSITIONS:
        assert after(state, verb) in RolloutState
    else:
        with pytest.raises(PolicyError) as refused:
            after(state, verb)
        assert refused.value.code == "wrong-state"


def test_nothing_leads_out_of_a_recall():
    assert not [pair for pair in TRANSITIONS if pair[0] is RolloutState.RECALLED]


def test_an_operator_can_recall_whatever_still_stands():
    for state in (RolloutState.ACTIVE, RolloutState.HELD, RolloutState.COMPLETE):
        assert after(state, Verb.RECALL) is RolloutState.RECALLED
    assert Verb.COMPLETE not in OPERATOR_VERBS
