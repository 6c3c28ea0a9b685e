"""How long the device waits before it tries again."""

import pytest

from device_agent.core.backoff import LEAST_S, MOST_S, WISH_MOST_S, delay_s


def test_the_pause_doubles_up_to_the_most() -> None:
    assert [delay_s(failures, 0.5) for failures in (2, 3, 4)] == [2.0, 4.0, 8.0]
    assert delay_s(10**9, 0.5) == MOST_S / 2


def test_a_pause_is_no_shorter_than_a_second_unless_the_most_is() -> None:
    assert delay_s(1, 0.0) == LEAST_S
    assert delay_s(1, 0.0, most_s=0.2) == 0.2
    assert delay_s(50, 0.999, most_s=0.2) == 0.2


@pytest.mark.parametrize("most_s", [5.0, 120.0, 86_400.0])
def test_luck_spreads_a_fleet_over_the_whole_of_the_most(most_s: float) -> None:
    pauses = [delay_s(40, luck, most_s=most_s) for luck in (0.25, 0.5, 0.75)]
    assert pauses == pytest.approx([most_s * 0.25, most_s * 0.5, most_s * 0.75])


def test_a_wish_is_not_shortened_by_the_most_but_by_a_day() -> None:
    assert delay_s(1, 0.0, 300.0, most_s=10.0) == 301.0
    assert delay_s(1, 0.0, 1e9, most_s=10.0) == WISH_MOST_S + 1.0
    assert delay_s(1, 0.0, -5.0) == LEAST_S
