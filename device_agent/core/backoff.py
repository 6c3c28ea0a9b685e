"""How long to wait before something is tried again."""

from typing import Final

FIRST_S: Final = 2.0
MOST_S: Final = 900.0
LEAST_S: Final = 1.0
WISH_MOST_S: Final = 24 * 3600.0
"""A peer that asks for a longer pause than this is asked again after it."""
_DOUBLINGS: Final = 30


def delay_s(
    failures: int, luck: float, wish_s: float | None = None, *, first_s: float = FIRST_S, most_s: float = MOST_S
) -> float:
    """Seconds to wait after `failures` failures in a row: exponential, with full jitter, a second to `most_s`.

    Full jitter (uniform over the whole interval) spreads a fleet that lost its server at one moment. `wish_s` is the
    peer's Retry-After: the jitter is added to it, so that the fleet does not return at one moment either; `most_s` is
    about this device's own pauses and does not shorten it.
    """
    bound_s = min(most_s, first_s * 2.0 ** min(max(failures - 1, 0), _DOUBLINGS))
    pause_s = min(max(LEAST_S, luck * bound_s), most_s)
    return pause_s if wish_s is None else min(max(wish_s, 0.0), WISH_MOST_S) + pause_s
