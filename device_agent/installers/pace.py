"""How fast a transfer may be, and how slow."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fleet_protocol.errors import TransportError

WINDOW_S: Final = 10.0
BLOCK: Final = 512 * 1024


@dataclass(slots=True)
class Pace:
    """Told of each block; waits where the transfer is too fast, raises TransportError `slow` where it is too slow."""

    rate_bytes_s: int
    """Highest rate; 0 means no limit."""
    min_rate_bytes_s: int
    """Lowest mean over `window_s`."""
    deadline_s: float
    window_s: float = WINDOW_S
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _start_s: float = field(init=False)
    _window_start_s: float = field(init=False)
    _window_bytes: int = 0
    _bytes: int = 0

    def __post_init__(self) -> None:
        self._start_s = self._window_start_s = self.clock()

    @property
    def idle_s(self) -> float:
        """How long one wait for data may be."""
        return min(self.window_s, self.deadline_s)

    @property
    def block_bytes(self) -> int:
        """How much to ask for at once, so that a wait for the rate limit is short."""
        return min(BLOCK, max(1024, self.rate_bytes_s)) if self.rate_bytes_s else BLOCK

    def took(self, size: int) -> None:
        """A block of `size` bytes has arrived."""
        self._bytes += size
        self._window_bytes += size
        now_s = self.clock()
        if now_s - self._start_s > self.deadline_s:
            raise TransportError("slow", f"the transfer takes longer than {self.deadline_s:g} s")
        self._check_least(now_s)
        if self.rate_bytes_s:
            ahead_s = self._bytes / self.rate_bytes_s - (now_s - self._start_s)
            if ahead_s > 0:
                self.sleep(ahead_s)

    def _check_least(self, now_s: float) -> None:
        spent_s = now_s - self._window_start_s
        if spent_s < self.window_s:
            return
        least = min(self.min_rate_bytes_s, self.rate_bytes_s / 2 if self.rate_bytes_s else self.min_rate_bytes_s)
        if self._window_bytes < least * spent_s:
            rate = self._window_bytes / spent_s
            raise TransportError("slow", f"{rate:.0f} bytes/s, at least {least:.0f} are wanted")
        self._window_start_s, self._window_bytes = now_s, 0
