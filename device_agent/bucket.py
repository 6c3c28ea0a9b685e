"""A token bucket: how often something may be done on behalf of strangers. Pure."""

from typing import Final

CAPACITY: Final = 10
REFILL_S: Final = 5.0


class TokenBucket:
    """Holds `capacity` tokens at first and gains one every `refill_s`. Times are monotonic seconds."""

    def __init__(self, now_s: float, *, capacity: int = CAPACITY, refill_s: float = REFILL_S) -> None:
        self._capacity, self._refill_s = capacity, refill_s
        self._tokens, self._at_s = float(capacity), now_s

    def take(self, now_s: float) -> bool:
        """Spend a token; False where there is none."""
        self._fill(now_s)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def give_back(self) -> None:
        """Undo one `take`: it was no stranger after all."""
        self._tokens = min(self._capacity, self._tokens + 1.0)

    def ready_s(self, now_s: float) -> float:
        """The moment from which `take` succeeds."""
        self._fill(now_s)
        return now_s if self._tokens >= 1.0 else now_s + (1.0 - self._tokens) * self._refill_s

    def _fill(self, now_s: float) -> None:
        gained = max(0.0, now_s - self._at_s) / self._refill_s
        self._tokens, self._at_s = min(self._capacity, self._tokens + gained), max(now_s, self._at_s)
