"""The order of Debian versions: Debian Policy, section 5.6.12."""

from itertools import pairwise

import pytest

from device_agent.installers.debian_version import compare

IN_ORDER = [
    "0~~",
    "0~~a",
    "0~",
    "0",
    "0.9",
    "1.0~beta1",
    "1.0~beta1.2",
    "1.0~rc1-1",
    "1.0",
    "1.0-0.1",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1.1",
    "1.0-2~bpo12+1",
    "1.0-2",
    "1.0-10",
    "1.0a",
    "1.0+git1",
    "1.0.0",
    "1.1",
    "1.10",
    "2.0",
    "10",
    "1:0.1",
    "2:0",
]
EQUAL = [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.0", "1.00"), ("1.a01", "1.a1"), ("1-0", "1-000")]


@pytest.mark.parametrize(("older", "newer"), list(pairwise(IN_ORDER)))
def test_each_is_older_than_the_next(older: str, newer: str) -> None:
    assert compare(older, newer) < 0
    assert compare(newer, older) > 0


def test_the_order_is_one_order() -> None:
    for at, one in enumerate(IN_ORDER):
        for place, other in enumerate(IN_ORDER):
            assert (compare(one, other) > 0) - (compare(one, other) < 0) == (at > place) - (at < place)


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_what_dpkg_takes_for_the_same(one: str, other: str) -> None:
    assert compare(one, other) == compare(other, one) == 0
