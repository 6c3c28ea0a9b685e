"""The codec: what is read back equals what was written, and nothing else is read."""

import math
from collections.abc import Mapping
from dataclasses import make_dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.core.codec import from_json, to_json
from device_agent.core.plan import Plan, PlannedRelease
from device_agent.core.record import Pauses, Record
from fleet_protocol import strict_json
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import Window
from tests.unit.device_core.plans import Bench, deployment, plan, release


def _busy_record() -> Record:
    bench = Bench()
    bench.restart(Pauses(check_least_s=7.5, retry_most_s=30.0))
    bench.install(1, deployment(11))
    bench.accept(2, deployment(12, window=Window(start_min=0, end_min=0), fallback=release(11)), floors={"x": 3})
    bench.fail("io", "disk")
    bench.accept(3, deployment(13))
    bench.command("rollback")
    return bench.record


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def test_a_record_reads_back_equal_through_bytes() -> None:
    record = _busy_record()
    data = strict_json.dumps(to_json(record))
    assert from_json(Record, strict_json.loads(data, max_size=len(data))) == record


def test_an_integer_may_stand_for_a_number_and_nothing_else_is_coerced() -> None:
    value = to_json(plan(1))
    assert from_json(Plan, value | {"expires_s": 5}).expires_s == 5.0
    for wrong in ("5", True, None, math.nan, math.inf, 10**400, [5]):
        with pytest.raises(ProtocolError, match="schema"):
            from_json(Plan, value | {"expires_s": wrong})


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("sequence",), True),
        (("sequence",), 1.0),
        (("group",), 7),
        (("deployments",), {}),
        (("deployments", 0), []),
        (("deployments", 0, "state"), "paused"),
        (("deployments", 0, "release"), None),
        (("deployments", 0, "fallback"), 3),
        (("deployments", 0, "devices"), ["node-1", 2]),
        (("deployments", 0, "release", "targets", 0, "kind"), "rocket"),
        (("deployments", 0, "release", "targets", 0, "install", "stop_s"), 0),
        (("floors",), {"my-service": "3"}),
        (("floors",), [["my-service", 3]]),
    ],
)
def test_what_does_not_fit_is_refused(path: tuple[str | int, ...], wrong: Any) -> None:
    value = strict_json.loads(strict_json.dumps(to_json(plan(1, deployment(12)))), max_size=100_000)
    _at(value, path[:-1])[path[-1]] = wrong
    with pytest.raises(ProtocolError) as refusal:
        from_json(Plan, value)
    assert refusal.value.code == "schema"


def test_an_unknown_member_is_refused_and_one_with_a_default_may_be_missing() -> None:
    value = to_json(plan(1))
    assert from_json(Plan, {key: item for key, item in value.items() if key != "floors"}) == plan(1)
    with pytest.raises(ProtocolError, match="missing"):
        from_json(Plan, {key: item for key, item in value.items() if key != "digest"})
    with pytest.raises(ProtocolError, match="unknown"):
        from_json(Plan, value | {"surprise": 1})


def test_a_record_from_before_the_pauses_has_the_default_ones() -> None:
    value = to_json(_busy_record())
    del value["pauses"]
    assert from_json(Record, value) == replace(_busy_record(), pauses=Pauses())


def test_only_what_the_kernel_remembers_is_encoded() -> None:
    with pytest.raises(TypeError):
        to_json({"when": object()})
    with pytest.raises(TypeError):
        to_json(Record)


@pytest.mark.parametrize("hint", [int | str, int | str | None, list[int], tuple[int, int], Mapping[int, str], object])
def test_a_type_that_the_codec_does_not_know_is_a_programmers_error(hint: Any) -> None:
    odd = make_dataclass("Odd", [("member", hint)], frozen=True)
    with pytest.raises(TypeError, match=r"the codec (knows only unions|does not know)"):
        from_json(odd, {"member": 1})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.sampled_from(sorted(to_json(Record()))), _JSON)
def test_no_value_gets_past_the_types(name: str, value: Any) -> None:
    """Whatever stands in a member: it is refused with `schema`, or the record reads back equal."""
    try:
        record = from_json(Record, to_json(Record()) | {name: value})
    except ProtocolError as error:
        assert error.code == "schema"
    else:
        assert from_json(Record, to_json(record)) == record


def test_releases_keep_their_mirrors() -> None:
    mirrored = release(12, urls=("https://a.example/x", "https://b.example/x"))
    assert from_json(PlannedRelease, to_json(mirrored)) == mirrored
    assert from_json(PlannedRelease, to_json(mirrored)) != replace(mirrored, counter=13)
