"""Documents: what a constructor accepts survives the wire, and what the wire accepts a constructor accepts."""

import json
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import schema, strict_json
from fleet_protocol.catalogue import TargetInfo
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import Deployment, Manifest, Target, Window, bucket
from fleet_protocol.messages import Assignment, Command, Report, State
from fleet_protocol.payload import Document, to_payload
from tests.fakes.documents import ASSIGNMENTS, DEPLOYMENTS, DOCUMENTS, IDS, REPORTS, SALTS, TARGET_INFOS, manifests

BIG = 10**6


@given(DOCUMENTS)
def test_a_document_survives_the_wire(document: Document) -> None:
    data = to_payload(document)
    again = schema.from_payload(type(document), data, max_size=BIG)
    assert again == document
    assert to_payload(again) == data


@given(TARGET_INFOS)
def test_a_description_survives(info: TargetInfo) -> None:
    value = strict_json.loads(strict_json.dumps(asdict(info)), max_size=BIG)
    assert schema.from_value(TargetInfo, value) == info


def code(kind: type[Any], value: object) -> str:
    with pytest.raises(ProtocolError) as caught:
        schema.from_payload(kind, json.dumps(value).encode(), max_size=BIG)
    return caught.value.code


WRONG = st.sampled_from([None, True, -1, 1.5, "", "../x", [], {}, [None], {"a": 1}, "x" * 5_000, 2**53 - 1, "\u0661"])


@given(document=st.one_of(manifests(), ASSIGNMENTS, REPORTS), wrong=WRONG, data=st.data())
def test_one_wrong_field_is_a_code_or_a_valid_document(document: Document, wrong: object, data: st.DataObject) -> None:
    value = json.loads(to_payload(document))
    name = data.draw(st.sampled_from(sorted(value)))
    value[name] = wrong
    try:
        again = schema.from_payload(type(document), json.dumps(value).encode(), max_size=BIG)
    except ProtocolError as error:
        assert error.code in ("schema", "type")
    else:
        assert json.loads(to_payload(again)) == value, "nothing was converted on the way"


@given(document=st.one_of(manifests(), ASSIGNMENTS, REPORTS), data=st.data())
def test_a_missing_or_an_unknown_field_is_refused(document: Document, data: st.DataObject) -> None:
    value = json.loads(to_payload(document))
    name = data.draw(st.sampled_from(sorted(value)))
    assert code(type(document), {k: v for k, v in value.items() if k != name}) in ("schema", "type")
    assert code(type(document), value | {"extra": 1}) == "schema"


@given(DEPLOYMENTS)
def test_an_unknown_field_deep_inside_is_refused(deployment: Deployment) -> None:
    value = json.loads(strict_json.dumps(asdict(deployment)))
    value["targets"][0]["url"] = "https://example.org"
    with pytest.raises(ProtocolError) as caught:
        schema.from_value(Deployment, value)
    assert caught.value.code == "schema"
    assert "targets.0.url" in caught.value.detail


@pytest.mark.parametrize(
    "wrong", [{"_type": "fairlead.command"}, {"v": 2}, {"v": True}, {"v": 1.0}, {"v": "1"}, {"_type": 1}]
)
def test_another_type_or_version_is_refused(wrong: dict[str, object]) -> None:
    good = Assignment(fleet="acme", device="d", group="g", sequence=1, issued="2026-01-01T00:00:00Z")
    assert code(Assignment, json.loads(to_payload(good)) | wrong) == "type"


@pytest.mark.parametrize("value", [None, 1, "text", [], [{}]])
def test_what_is_no_object_is_no_document(value: object) -> None:
    assert code(Manifest, value) == "schema"


def test_a_detail_never_carries_the_peers_input() -> None:
    secret = "x" * 400
    with pytest.raises(ProtocolError) as caught:
        schema.from_value(Target, {"path": "a", "length": secret, "sha256": "b"})
    assert "xxx" not in caught.value.detail
    assert len(caught.value.detail) <= 300


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {"fleet": "acme", "group": "g", "sequence": 1, "root": 1, "deployments": ()}
    times = {"issued": "2026-01-01T00:00:00Z", "expires": "2026-01-02T00:00:00Z"}
    return Manifest(**(values | times | changes))


def deployment(**changes: Any) -> Deployment:
    values: dict[str, Any] = {
        "id": "d-1",
        "package": "p",
        "version": "1",
        "counter": 1,
        "targets": (Target(path="p/1/x.raw", length=1, sha256="0" * 64),),
        "state": "active",
        "share_bp": 500,
        "salt": "6f2c9e01",
        "devices": (),
        "fallback": None,
        "not_before": None,
        "window": None,
        "probation_s": 60,
        "sources": (),
    }
    return Deployment(**(values | changes))


@pytest.mark.parametrize(
    "wrong",
    [
        {"sequence": 0},
        {"sequence": True},
        {"sequence": 2**53},
        {"root": 0},
        {"fleet": "Acme"},
        {"group": "a/b"},
        {"issued": "2026-01-02T00:00:00Z"},
        {"expires": "2025-01-02T00:00:00Z"},
        {"expires": "tomorrow"},
        {"deployments": (deployment(), deployment())},
        {"deployments": tuple(deployment(id=f"d-{number}") for number in range(257))},
    ],
    ids=lambda value: next(iter(value)),
)
def test_an_impossible_manifest_cannot_be_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        manifest(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "d/1"},
        {"counter": 0},
        {"targets": ()},
        {"targets": deployment().targets * 2},
        {"state": "paused"},
        {"share_bp": -1},
        {"share_bp": 10_001},
        {"share_bp": True},
        {"salt": "abc"},
        {"devices": ("A",)},
        {"devices": ("a",) * 2_001},
        {"not_before": "soon"},
        {"probation_s": -1},
        {"probation_s": 8 * 86_400},
    ],
    ids=lambda value: next(iter(value)),
)
def test_an_impossible_deployment_cannot_be_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        deployment(**wrong)


@given(salt=SALTS, device=IDS)
def test_a_bucket_is_the_documented_one(salt: str, device: str) -> None:
    import hashlib

    digest = hashlib.sha256(salt.encode() + b"|" + device.encode()).digest()
    assert bucket(salt, device) == int.from_bytes(digest[:4], "big") % 10_000


@given(device=IDS, narrow=st.integers(0, 10_000), wide=st.integers(0, 10_000))
def test_widening_never_drops_a_device(device: str, narrow: int, wide: int) -> None:
    low, high = sorted((narrow, wide))
    if deployment(share_bp=low).takes_part(device):
        assert deployment(share_bp=high).takes_part(device)
    assert not deployment(share_bp=0).takes_part(device)
    assert deployment(share_bp=10_000).takes_part(device)
    assert deployment(share_bp=0, devices=(device,)).takes_part(device)


def test_buckets_are_even() -> None:
    """A share of 5 % of 20,000 devices is 1,000, give or take what chance allows (4.5 sigma)."""
    taking = sum(deployment(share_bp=500).takes_part(f"node-{number}") for number in range(20_000))
    assert abs(taking - 1_000) < 140


@given(st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 59))
def test_a_window_holds_its_minutes(start: int, end: int, minute: int, second: int) -> None:
    window = Window(start_min=start, end_min=end)
    inside = start <= minute < end if start < end else minute >= start or minute < end
    assert window.holds(86_400 * 3 + minute * 60 + second) == inside


@pytest.mark.parametrize(
    "wrong", [{"counter": 0}, {"boot": "A"}, {"attack": "bored"}, {"attacks": {"bored": 1}}, {"attacks": {"parse": -1}}]
)
def test_an_impossible_report_cannot_be_built(wrong: dict[str, Any]) -> None:
    values: dict[str, Any] = {"fleet": "f", "device": "d", "boot": "b", "counter": 1, "time": "2026-01-01T00:00:00Z"}
    values |= {"group": None, "sequence": 0, "root": 0, "installed": (), "attempt": None}
    values |= {"attack": None, "attacks": {}, "why": ""}
    assert Report(**values)
    with pytest.raises(ProtocolError):
        Report(**(values | wrong))


@pytest.mark.parametrize(
    "wrong", [{"name": "reboot"}, {"lines": -1}, {"lines": 10_001}, {"package": "A"}, {"service": "/x"}]
)
def test_an_impossible_command_cannot_be_built(wrong: dict[str, Any]) -> None:
    values: dict[str, Any] = {"fleet": "f", "device": "d", "id": "c", "name": "retry", "package": None, "service": None}
    values |= {"issued": "2026-01-01T00:00:00Z", "expires": "2026-01-01T00:01:00Z", "lines": 0}
    assert Command(**values)
    with pytest.raises(ProtocolError):
        Command(**(values | wrong))


def test_state_is_flat() -> None:
    state = State(
        time=1.5,
        stage="idle",
        why="up to date",
        group="g",
        sequence=3,
        progress=None,
        attempt_package=None,
        attempt_version=None,
        attack=None,
        installed={"b": "2", "a": "1"},
    )
    flat = state.to_flat()
    assert not any(isinstance(value, dict | list | tuple) for value in flat.values())
    assert (flat["version_a"], flat["version_b"], flat["stage"]) == ("1", "2", "idle")
    assert {field.name for field in fields(State)} - {"installed"} <= set(flat)
