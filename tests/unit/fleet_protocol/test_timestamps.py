"""Times in signed documents have one spelling."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.errors import ProtocolError
from fleet_protocol.timestamps import format_time, parse_time

LOW_S, HIGH_S = -62_135_596_800, 253_402_300_799


@given(st.integers(LOW_S, HIGH_S))
def test_a_time_survives(epoch_s: int) -> None:
    text = format_time(epoch_s)
    assert len(text) == 20
    assert parse_time(text) == epoch_s


@given(st.floats(LOW_S, HIGH_S))
def test_fractions_are_rounded_down(epoch_s: float) -> None:
    assert parse_time(format_time(epoch_s)) == math.floor(epoch_s)


def test_known_times() -> None:
    assert parse_time("1970-01-01T00:00:00Z") == 0
    assert parse_time("2026-11-23T06:00:00Z") == 1_795_413_600
    assert format_time(1_795_413_600.9) == "2026-11-23T06:00:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-23T06:00:00",
        "2026-11-23T06:00:00z",
        "2026-11-23 06:00:00Z",
        "2026-11-23T06:00:00+00:00",
        "2026-11-23T06:00:00.5Z",
        "2026-11-23T06:00Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-23T24:00:00Z",
        "2026-11-23T06:00:60Z",
        "2026-11-23T06:00:61Z",
        "0000-01-01T00:00:00Z",
        "2026-11-23T06:00:00Z\n",
        " 2026-11-23T06:00:00Z",
        "\u0662\u0660\u0662\u0666-11-23T06:00:00Z",
        "2026-11-23T06:00:0\uff10Z",
    ],
)
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_time(text)
    assert caught.value.code == "schema"


@given(st.text(max_size=25))
def test_any_text_is_a_time_or_a_code(text: str) -> None:
    try:
        assert format_time(parse_time(text)) == text
    except ProtocolError as error:
        assert error.code == "schema"
