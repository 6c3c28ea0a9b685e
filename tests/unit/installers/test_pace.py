"""How fast a transfer may be: device_agent/installers/pace.py, with time that the test tells."""

from dataclasses import dataclass, field

import pytest

from device_agent.installers.pace import BLOCK, Pace
from fleet_protocol.errors import TransportError


@dataclass
class Time:
    now_s: float = 100.0
    slept: list[float] = field(default_factory=list)

    def read(self) -> float:
        return self.now_s

    def sleep(self, wait_s: float) -> None:
        self.slept.append(wait_s)
        self.now_s += wait_s


def pace(time: Time, *, most: int = 0, least: int = 1_000, deadline_s: float = 100.0) -> Pace:
    return Pace(most, least, deadline_s, clock=time.read, sleep=time.sleep)


def test_a_limit_is_kept_on_average() -> None:
    time = Time()
    limited = pace(time, most=10_000)
    for _ in range(50):
        limited.took(limited.block_bytes)
    assert time.now_s - 100.0 == pytest.approx(50 * 10_000 / 10_000)
    assert max(time.slept) <= 1.001


def test_blocks_are_small_where_the_limit_is() -> None:
    assert [pace(Time(), most=most).block_bytes for most in (0, 1, 5_000, 10**9)] == [BLOCK, 1_024, 5_000, BLOCK]


def test_slower_than_the_least_over_a_window_is_too_slow() -> None:
    """Attack B2."""
    time = Time()
    slow = pace(time)
    slow.took(20_000)
    time.now_s += 10
    slow.took(1)
    with pytest.raises(TransportError) as caught:
        for _ in range(10):
            time.now_s += 1.1
            slow.took(900)
    assert caught.value.code == "slow"


def test_the_deadline_is_for_all_of_it() -> None:
    """Attack B2."""
    time = Time()
    steady = pace(time, deadline_s=30)
    with pytest.raises(TransportError) as caught:
        for _ in range(40):
            time.now_s += 1
            steady.took(2_000)
    assert caught.value.code == "slow"
    assert time.now_s == 131


def test_the_own_limit_is_not_held_against_the_source() -> None:
    time = Time()
    limited = pace(time, most=500, least=1_000, deadline_s=1_000)
    for _ in range(40):
        limited.took(500)
    assert time.now_s - 100.0 == pytest.approx(40), "at half of what a source has to give, without a complaint"


def test_a_wait_is_never_longer_than_the_deadline() -> None:
    assert pace(Time(), deadline_s=3).idle_s == 3
    assert pace(Time(), deadline_s=3_600).idle_s == 10
