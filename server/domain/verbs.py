"""What may happen to a rollout in which state: the table behind the REST verbs, the engine and the diagram."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from fleet_protocol.errors import PolicyError
from server.domain.rollout import RolloutState

_ACTIVE, _HELD, _RECALLED, _COMPLETE = RolloutState


class Verb(StrEnum):
    """What an operator may ask, or the engine may decide."""

    OPEN_WAVE = "open-wave"
    HOLD = "hold"
    RESUME = "resume"
    ADVANCE = "advance"
    RECALL = "recall"
    RETRY = "retry"
    COMPLETE = "complete"


OPERATOR_VERBS: Final = (Verb.HOLD, Verb.RESUME, Verb.ADVANCE, Verb.RECALL, Verb.RETRY)

TRANSITIONS: Final[Mapping[tuple[RolloutState, Verb], RolloutState]] = {
    (_ACTIVE, Verb.OPEN_WAVE): _ACTIVE,
    (_ACTIVE, Verb.ADVANCE): _ACTIVE,
    (_ACTIVE, Verb.RETRY): _ACTIVE,
    (_ACTIVE, Verb.HOLD): _HELD,
    (_ACTIVE, Verb.RECALL): _RECALLED,
    (_ACTIVE, Verb.COMPLETE): _COMPLETE,
    (_HELD, Verb.RESUME): _ACTIVE,
    (_HELD, Verb.RECALL): _RECALLED,
    (_HELD, Verb.RETRY): _HELD,
    (_COMPLETE, Verb.RECALL): _RECALLED,
    (_COMPLETE, Verb.RETRY): _COMPLETE,
}
"""A pair that is not here is refused. Nothing leads out of RECALLED."""


def after(state: RolloutState, verb: Verb) -> RolloutState:
    """The state that `verb` leads to, or PolicyError `wrong-state` with the verbs that are possible."""
    target = TRANSITIONS.get((state, verb))
    if target is None:
        possible = [v for v in OPERATOR_VERBS if (state, v) in TRANSITIONS]
        hint = f"possible: {', '.join(possible)}" if possible else "nothing is possible any more; publish a new release"
        raise PolicyError("wrong-state", f"a rollout that is {state} can not take '{verb}' ({hint})")
    return target
