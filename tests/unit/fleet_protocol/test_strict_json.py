"""Strict JSON: what two parsers could disagree about is refused, and nothing else is."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import limits, strict_json
from fleet_protocol.errors import ProtocolError

SAFE = st.integers(-limits.JSON_INTEGER, limits.JSON_INTEGER)
TEXT = st.text(st.characters(exclude_categories=("Cs",)))
VALUES = st.recursive(
    st.none() | st.booleans() | SAFE | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def code(data: bytes, *, max_size: int = 10_000) -> str:
    with pytest.raises(ProtocolError) as caught:
        strict_json.loads(data, max_size=max_size)
    return caught.value.code


@given(VALUES)
def test_what_is_written_is_read(value: object) -> None:
    assert strict_json.loads(strict_json.dumps(value), max_size=10**6) == value


@given(st.dictionaries(TEXT, SAFE))
def test_equal_values_give_equal_bytes(value: dict[str, int]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert strict_json.dumps(value) == strict_json.dumps(backwards)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_a_code(data: bytes) -> None:
    try:
        value = strict_json.loads(data, max_size=200)
    except ProtocolError as error:
        assert error.code == ("size" if len(data) > 200 else "parse")
    else:
        assert json.loads(data) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"nul",
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'[{"b":{"a":1,"a":1}}]',
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"9007199254740992",
        b"-9007199254740992",
        b"1" * 5_000,
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf1",
        b"\xff\xfe1\x00",
        b"01",
        b"+1",
        b"1.",
        b".5",
        b"0x10",
        b"'a'",
        b'"a\nb"',
        b"[1,]",
        b'{"a":1,}',
        b"{a:1}",
        b"1 2",
        b"1//x",
        b"[" * 17 + b"]" * 17,
        b'{"a":' * 17 + b"1" + b"}" * 17,
        b"[" * 9_000,
        b'"' + b"a" * (limits.JSON_STRING + 1) + b'"',
        b'"\\',
        b'["\\"[[',
    ],
)
def test_what_parsers_disagree_about_is_refused(data: bytes) -> None:
    assert code(data, max_size=100_000) == "parse"


def test_the_bounds_themselves_are_allowed() -> None:
    assert strict_json.loads(b"9007199254740991", max_size=99) == limits.JSON_INTEGER
    assert strict_json.loads(b"-9007199254740991", max_size=99) == -limits.JSON_INTEGER
    assert strict_json.loads(b"[" * 16 + b"]" * 16, max_size=99)
    text = b'"' + b"a" * limits.JSON_STRING + b'"'
    assert len(strict_json.loads(text, max_size=len(text))) == limits.JSON_STRING


def test_brackets_in_strings_are_not_depth() -> None:
    data = strict_json.dumps(["[" * 99, '"' + "{" * 99, "\\" + "[" * 99])
    assert strict_json.loads(data, max_size=10_000)


def test_the_size_is_checked_before_anything_is_read() -> None:
    assert code(b"[" * 11, max_size=10) == "size"
    assert strict_json.loads(b"[1,2,3,45]", max_size=10) == [1, 2, 3, 45]


@pytest.mark.parametrize("data", [b'"\\' * 130_000, b'"' * 260_000, b'"a\\"' * 65_000, b"[" * 260_000, b"\\" * 260_000])
def test_a_hostile_quarter_megabyte_costs_little(data: bytes) -> None:
    """Quadratic scanning of this would take minutes; the bound is generous on purpose."""
    started_s = time.process_time()
    assert code(data, max_size=limits.MANIFEST_SIZE) == "parse"
    assert time.process_time() - started_s < 20


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), [{"a": float("nan")}]])
def test_what_is_not_json_is_never_written(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        strict_json.dumps(value)
