"""Decides what a rollout does next, from evidence alone.

Rules, cited by number in the tests and in `docs/invariants.md`:

E1. A recalled or complete rollout decides nothing. A held one decides nothing but a recall.
E2. Failures speak first: more failed devices than `failure_limit`, and a larger share of the finished ones than
    `failure_rate`, stop the rollout by `on_failure`. Only devices that take part have a vote, one each.
E3. Silence is evidence against a comparable arm: more silent devices than `silence_limit`, beyond the share that is
    silent among devices not selected yet, hold the rollout. Silence never recalls: nobody said that anything failed.
E4. Silence is never health: a wave passes by devices that committed and said so themselves.
E5. No wave opens before the one before it has passed: it has soaked, and `success_rate` of its devices, at least
    one, have committed. A wave selects nobody only where nobody is left to select, or where it asks for no larger
    share than the one before and names nobody who is left; then it passes by its soak alone.
E6. An operator's `advance` stands in for E5 once. It never overrules E1 to E3.
E7. The last wave's passing completes the rollout.
E8. At most one decision at a time, and deciding twice changes nothing: evidence counted for another wave than the
    present one opens nothing.
E9. Resuming excuses the failures and the silence that the operator could see; what comes after counts anew.
E10. A rollout that has expired opens no wave: it is complete if its last wave has passed by then, and else held.
E11. A wave that asks for a larger share than the one before selects somebody as long as anybody is left: where its
    share holds nobody new and it names nobody, it is raised to just above the lowest bucket that is left. Decided when
    the wave opens, and kept: no share falls by what joins or leaves the group later.
"""

import math
from dataclasses import replace

from fleet_protocol.timestamps import format_time
from server.domain.rollout import (
    Complete,
    Decision,
    Hold,
    Observations,
    OpenWave,
    Recall,
    Rollout,
    RolloutState,
)

FINAL_STATES = frozenset({RolloutState.RECALLED, RolloutState.COMPLETE})


def decide(rollout: Rollout, seen: Observations, now_s: float) -> list[Decision]:
    """At most one decision; none where the evidence asks for nothing new. `now_s` is epoch seconds."""
    if rollout.state in FINAL_STATES:
        return []
    stop = _failures(rollout, seen)
    if rollout.state is RolloutState.HELD:
        return [stop] if isinstance(stop, Recall) else []
    if stop is None:
        stop = _silence(rollout, seen)
    if stop is not None:
        return [stop]
    steps = _progress(rollout, seen, now_s)
    if rollout.has_expired(now_s) and Complete() not in steps:
        return [Hold(reason=f"expired at {format_time(rollout.policy.until_s or 0.0)}: no device begins any more")]
    return steps


def apply(rollout: Rollout, decision: Decision, now_s: float) -> Rollout:
    """The rollout after a decision; applying one twice is applying it once."""
    match decision:
        case OpenWave(index=index, share_bp=share_bp):
            if index <= rollout.wave:
                return rollout
            shares = (*(share_of(rollout, wave) for wave in range(index)), share_bp)
            return replace(rollout, wave=index, shares=shares, wave_opened_s=now_s, advance=False)
        case Hold(reason=reason):
            return replace(rollout, state=RolloutState.HELD, reason=reason, advance=False)
        case Recall(reason=reason):
            return replace(rollout, state=RolloutState.RECALLED, reason=reason, advance=False)
        case Complete():
            return replace(rollout, state=RolloutState.COMPLETE, reason="", advance=False)


def resume(rollout: Rollout, seen: Observations) -> Rollout:
    """A held rollout goes on from where it was; any other rollout is returned unchanged."""
    if rollout.state is not RolloutState.HELD:
        return rollout
    return replace(
        rollout,
        state=RolloutState.ACTIVE,
        reason="",
        excused_failures=seen.treated.failed,
        excused_silent=seen.treated.silent,
    )


def share_of(rollout: Rollout, wave: int | None = None) -> int:
    """The share of the group that takes part, in basis points, once this wave is open; without one, now.

    0 before the first wave.
    """
    index = rollout.wave if wave is None else wave
    if index < 0:
        return 0
    return rollout.shares[index] if index < len(rollout.shares) else rollout.policy.waves[index].share_bp


def next_share(rollout: Rollout, lowest_left: int | None, next_named: int) -> int:
    """The share with which the next wave opens (E11); see Observations for the arguments."""
    index = rollout.wave + 1
    asked_bp = rollout.policy.waves[index].share_bp
    before_bp = rollout.policy.waves[index - 1].share_bp if index else 0
    share_bp = max(asked_bp, share_of(rollout))
    if asked_bp <= before_bp or next_named or lowest_left is None:
        return share_bp
    return max(share_bp, lowest_left + 1)


def named_devices(rollout: Rollout) -> tuple[str, ...]:
    """Devices that take part by name: those of every open wave."""
    return tuple(device for wave in rollout.policy.waves[: rollout.wave + 1] for device in wave.devices)


def _failures(rollout: Rollout, seen: Observations) -> Hold | Recall | None:
    policy = rollout.policy
    failed = seen.treated.failed - rollout.excused_failures
    finished = failed + seen.treated.committed
    if failed <= policy.failure_limit or failed <= policy.failure_rate * finished:
        return None
    reason = f"{failed} of {finished} finished devices failed, {policy.failure_limit} tolerated"
    if seen.failures:
        worst = seen.failures[0]
        reason += f"; {worst.device}: {worst.code}" + (f" ({worst.detail})" if worst.detail else "")
    return Recall(reason=reason) if policy.on_failure == "recall" else Hold(reason=reason)


def _silence(rollout: Rollout, seen: Observations) -> Hold | None:
    treated, control = seen.treated, seen.control
    expected = treated.devices * control.silent / control.devices if control.devices else 0.0
    excess = treated.silent - rollout.excused_silent - expected
    if excess <= rollout.policy.silence_limit:
        return None
    return Hold(
        reason=f"{treated.silent} of {treated.devices} selected devices are silent, "
        f"against {control.silent} of {control.devices} not selected"
    )


def _progress(rollout: Rollout, seen: Observations, now_s: float) -> list[Decision]:
    if rollout.wave >= 0 and not rollout.advance and not _passed(rollout, seen, now_s):
        return []
    if rollout.wave + 1 < len(rollout.policy.waves):
        return [OpenWave(index=rollout.wave + 1, share_bp=next_share(rollout, seen.lowest_left, seen.next_named))]
    return [Complete()] if _passed(rollout, seen, now_s) else []


def _passed(rollout: Rollout, seen: Observations, now_s: float) -> bool:
    if seen.of_wave != rollout.wave or rollout.wave_opened_s is None:
        return False
    if now_s - rollout.wave_opened_s < rollout.policy.soak_s:
        return False
    if seen.wave.devices == 0:
        return True
    needed = max(1, math.ceil(rollout.policy.success_rate * seen.wave.devices))
    return seen.wave.committed >= needed
