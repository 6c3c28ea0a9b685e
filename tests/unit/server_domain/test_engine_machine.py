"""The engine against a small world of devices, under every order of events that Hypothesis finds.

By their numbers in `docs/invariants.md` these are the invariants S1, S2, S3, S4, S5, S9 and S12.
"""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.domain.engine import apply, decide, resume, share_of
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

FINAL = (RolloutState.RECALLED, RolloutState.COMPLETE)
BUCKETS = (90, 95, 3_000, 3_500, 3_900, 4_000, 5_000, 6_000, 7_000, 8_000, 9_000, 9_999)
"""Of the devices that are there from the start."""
SHARES = (10, 50, 4_000, 10_000)
"""As configured: without E11, the first two waves would select nobody."""


class EngineWorld(RuleBasedStateMachine):
    """Twelve devices and whoever joins, in four waves; the engine is asked after every step."""

    def __init__(self):
        super().__init__()
        self.now_s = 1_000.0
        policy = Policy(
            waves=tuple(Wave(share_bp=share) for share in SHARES),
            soak_s=30,
            failure_limit=1,
            failure_rate=0.0,
            silence_s=60,
            silence_limit=1,
            on_failure="recall",
            probation_s=5,
        )
        self.rollout = Rollout(id="d-1", group="g", package="p", version="2", counter=2, policy=policy)
        self.buckets = list(BUCKETS)
        self.said = ["waiting"] * len(BUCKETS)
        self.evidence = []

    def selected(self, wave):
        share_bp = share_of(self.rollout, wave)
        return [device for device, place in enumerate(self.buckets) if place < share_bp]

    def newest(self):
        before = self.selected(self.rollout.wave - 1)
        return [device for device in self.selected(self.rollout.wave) if device not in before]

    def arm(self, devices):
        words = [self.said[device] for device in devices]
        counts = {word: words.count(word) for word in ("committed", "failed", "silent")}
        return Arm(devices=len(words), **counts)

    def observe(self):
        selected = self.selected(self.rollout.wave)
        left = [device for device in range(len(self.buckets)) if device not in selected]
        return Observations(
            of_wave=self.rollout.wave,
            wave=self.arm(self.newest()),
            treated=self.arm(selected),
            control=self.arm(left),
            lowest_left=min((self.buckets[device] for device in left), default=None),
        )

    @rule()
    def tick(self):
        before, seen = self.rollout, self.observe()
        decisions = decide(before, seen, self.now_s)
        assert len(decisions) <= 1
        for decision in decisions:
            self.check(before, decision, seen)
            self.rollout = apply(before, decision, self.now_s)
            if isinstance(decision, OpenWave) and seen.control.devices:
                assert self.newest(), "E11: a wave selects somebody as long as anybody is left"
            assert share_of(self.rollout) >= share_of(before), "E11: no share falls"
            assert apply(self.rollout, decision, self.now_s + 1) == self.rollout, "E8: applying twice is applying once"
            assert decide(self.rollout, seen, self.now_s) == [], "E8: deciding twice on one evidence"
        if seen.treated.failed - self.rollout.excused_failures > 1:
            assert self.rollout.state in FINAL, "E2: failures stop a rollout"
        self.evidence.append(seen)

    def check(self, before, decision, seen):
        if isinstance(decision, OpenWave):
            assert not before.has_expired(self.now_s), "E10: nobody begins any more"
            assert decision.index == before.wave + 1, "E5: waves open in order"
            assert seen.treated.failed - before.excused_failures <= 1, "E2: no wave opens over failures"
            if before.wave >= 0 and not before.advance:
                self.check_passed(before, seen)
        if isinstance(decision, Complete):
            self.check_passed(before, seen)
        if isinstance(decision, Recall):
            assert seen.treated.failed > before.excused_failures + 1, "E2, E3: only failures recall"
        if isinstance(decision, Hold):
            assert seen.treated.silent > 1 or before.has_expired(self.now_s), "E3, E10: silence or the end holds"

    def check_passed(self, before, seen):
        assert seen.wave.committed >= 0.8 * seen.wave.devices, "E4, E5: whoever is silent has not committed"
        assert self.now_s - before.wave_opened_s >= 30, "E5: soaked"

    @rule(place=st.integers(0, 9_999))
    def a_device_joins(self, place):
        """It never shrinks what takes part already."""
        before = self.selected(self.rollout.wave)
        self.buckets.append(place)
        self.said.append("waiting")
        assert set(before) <= set(self.selected(self.rollout.wave))

    @rule(device=st.integers(0, len(BUCKETS) - 1), word=st.sampled_from(["committed", "failed", "silent", "waiting"]))
    def device_says(self, device, word):
        if device in self.selected(self.rollout.wave) or word in ("silent", "waiting"):
            self.said[device] = word

    @rule(
        words=st.lists(st.sampled_from(["committed"] * 5 + ["silent", "waiting", "failed"]), min_size=7, max_size=7),
        seconds=st.sampled_from([29, 31]),
    )
    def a_wave_goes_by(self, words, seconds):
        """The usual case, which single steps would seldom come to."""
        for device, word in zip(self.newest(), words, strict=False):
            self.said[device] = word
        self.now_s += seconds
        self.tick()

    @rule()
    def evidence_comes_late(self):
        """What was counted for another wave opens nothing, however long ago it was."""
        if self.rollout.advance:
            return
        for seen in self.evidence:
            if seen.of_wave != self.rollout.wave >= 0:
                decisions = decide(self.rollout, seen, self.now_s + 1_000)
                assert not [d for d in decisions if isinstance(d, OpenWave | Complete)], "E8"

    @rule(seconds=st.sampled_from([1, 29, 31, 1_000]))
    def time_passes(self, seconds):
        self.now_s += seconds

    @rule(after_s=st.sampled_from([0, 100, 3_000]))
    def it_is_given_an_end(self, after_s):
        policy = replace(self.rollout.policy, until_s=self.now_s + after_s)
        self.rollout = replace(self.rollout, policy=policy)

    @rule(verb=st.sampled_from(["hold", "resume", "advance", "recall"]))
    def operator(self, verb):
        if self.rollout.state in FINAL:
            return
        if verb == "resume":
            self.rollout = resume(self.rollout, self.observe())
        elif verb == "advance":
            self.rollout = replace(self.rollout, advance=True)
        else:
            decision = Hold(reason="operator") if verb == "hold" else Recall(reason="operator")
            self.rollout = apply(self.rollout, decision, self.now_s)

    @invariant()
    def final_is_final(self):
        if self.rollout.state in FINAL:
            assert decide(self.rollout, self.observe(), self.now_s + 1e6) == []

    @invariant()
    def complete_means_the_last_wave_was_open(self):
        if self.rollout.state is RolloutState.COMPLETE:
            assert self.rollout.wave == len(SHARES) - 1
            assert self.selected(self.rollout.wave), "E11: nothing is complete without a device"


TestEngineWorld = EngineWorld.TestCase
TestEngineWorld.settings = settings(max_examples=150, stateful_step_count=40)
