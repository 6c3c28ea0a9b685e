"""What a download tells of itself, however slow it is."""

from itertools import pairwise

from device_agent.installers.ops.fetch import Tale
from device_agent.worker.steps import LIFE_S

TOTAL = 740_000_000


class Told:
    """A download of one artifact at a rate of its own."""

    def __init__(self, total: int = TOTAL) -> None:
        self.now_s, self.there = 0.0, 0
        self.shares: list[float] = []
        self.moments: list[float] = []
        self.tale = Tale(total, self._heard, lambda: self.now_s)

    def _heard(self, share: float) -> None:
        self.shares.append(share)
        self.moments.append(self.now_s)

    def arrives(self, rate: int, seconds: int) -> None:
        for _ in range(seconds):
            self.now_s += 1.0
            self.there += rate
            self.tale.there(self.there)

    @property
    def longest_s(self) -> float:
        """The longest silence."""
        return max(b - a for a, b in zip([0.0, *self.moments], [*self.moments, self.now_s], strict=True))


def test_each_hundredth_is_told() -> None:
    told = Told(1_000)
    told.arrives(1, 1_000)
    assert told.shares[-1] == 1.0
    assert max(b - a for a, b in pairwise(told.shares)) < 0.012


def test_a_slow_download_is_no_silence() -> None:
    """One hundredth takes an hour: more than a worker may be silent."""
    told = Told()
    told.arrives(2_048, 4_000)
    assert told.shares[-1] < 0.02
    assert told.longest_s <= LIFE_S


def test_what_is_loaded_once_more_is_no_silence() -> None:
    told = Told()
    told.arrives(TOTAL // 10, 9)
    told.there = 0
    told.arrives(TOTAL // 10_000, 5_000)
    assert told.longest_s <= LIFE_S
