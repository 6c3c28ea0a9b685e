"""What the offline keys say of an artifact, and what is said of a fleet in root."""

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.archive import MemberNames, check_member_name, fold
from fleet_protocol.catalogue import TargetInfo, parse_floor
from fleet_protocol.errors import ProtocolError
from fleet_protocol.fleet_role import format_fleet_role, parse_fleet_role
from fleet_protocol.install import HealthCheck, Install
from fleet_protocol.payload import to_value
from fleet_protocol.schema import from_value
from tests.fakes.documents import IDS

INFO: dict[str, Any] = {
    "package": "p",
    "kind": "service",
    "version": "1",
    "counter": 1,
    "classes": ["x86_64"],
    "format": "tar.zst",
    "unpacked_size": 1,
    "unpacked_files": 1,
    "precursors": [],
    "requires": [],
    "install": {"exec": ["bin/x"], "stop_s": 1, "check": None},
    "text": "",
}
CHECK = {"kind": "http", "target": "http://127.0.0.1:1/", "interval_s": 1, "timeout_s": 1, "failures": 1}


def test_a_member_that_says_nothing_new_is_left_out() -> None:
    """The bytes of what was signed before the member was added stay what they were."""
    assert to_value(from_value(TargetInfo, INFO)) == INFO
    more = INFO | {"part": "web", "install": INFO["install"] | {"dependencies": "repository"}}
    assert to_value(from_value(TargetInfo, more)) == more
    said = INFO | {"part": "", "install": INFO["install"] | {"unit": None, "packages": []}}
    assert to_value(from_value(TargetInfo, said)) == INFO


def test_the_example_is_valid() -> None:
    assert from_value(TargetInfo, INFO | {"install": INFO["install"] | {"check": CHECK}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"package": "P"},
        {"kind": "shell"},
        {"version": "a/b"},
        {"counter": 0},
        {"counter": True},
        {"counter": 1.0},
        {"counter": "1"},
        {"classes": []},
        {"classes": ["a", "a"]},
        {"classes": ["A"]},
        {"classes": "x86_64"},
        {"format": "tar.gz"},
        {"unpacked_size": -1},
        {"unpacked_size": 2**46},
        {"unpacked_files": 1_000_001},
        {"precursors": [{"sha256": "x"}]},
        {"requires": [{"package": "a"}]},
        {"install": None},
        {"install": {"exec": [], "stop_s": 0, "check": None}},
        {"install": {"exec": ["a\0b"], "stop_s": 1, "check": None}},
        {"install": {"exec": ["a"] * 65, "stop_s": 1, "check": None}},
        {"install": {"exec": [], "stop_s": 1, "check": CHECK | {"kind": "tcp"}}},
        {"install": {"exec": [], "stop_s": 1, "check": CHECK | {"failures": 0}}},
        {"install": {"exec": [], "stop_s": 1, "check": None, "env": {}}},
        {"text": "x" * 5_000},
        {"post_install": "rm"},
    ],
    ids=str,
)
def test_a_description_of_another_form_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        from_value(TargetInfo, INFO | wrong)
    assert caught.value.code == "schema"


def test_impossible_checks_cannot_be_built() -> None:
    for wrong in ({"interval_s": 0}, {"interval_s": 3_601}, {"timeout_s": 0}, {"timeout_s": 301}, {"failures": 101}):
        with pytest.raises(ProtocolError):
            HealthCheck(**(CHECK | wrong))  # type: ignore[arg-type]
    assert asdict(Install(exec=(), stop_s=600, check=None))["stop_s"] == 600


@given(st.dictionaries(IDS, st.integers(0, 2**53 - 1), max_size=4))
def test_floors_survive(floors: dict[str, int]) -> None:
    assert parse_floor(floors) == floors


def test_no_floors_are_no_floors() -> None:
    assert parse_floor(None) == {}


@pytest.mark.parametrize(
    "value", [[], 1, "x", {"A": 1}, {"a": -1}, {"a": True}, {"a": 1.0}, {"a": "1"}, {"a": 2**53}, {1: 1}]
)
def test_other_floors_are_refused(value: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_floor(value)
    assert caught.value.code == "schema"


KEY = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "3b" * 32}}


def test_the_fleets_role_survives() -> None:
    role = parse_fleet_role(format_fleet_role("acme", 1, {"k": KEY}))
    assert (role.fleet, role.deployment.threshold, list(role.deployment.keys)) == ("acme", 1, ["k"])


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"fleet": "acme"},
        format_fleet_role("Acme", 1, {"k": KEY}),
        format_fleet_role("acme", 0, {"k": KEY}),
        format_fleet_role("acme", 2, {"k": KEY}),
        format_fleet_role("acme", threshold=True, keys={"k": KEY}),
        format_fleet_role("acme", 1, {}),
        format_fleet_role("acme", 1, {"k": {}}),
        format_fleet_role("acme", 1, {"k": KEY}) | {"extra": 1},
        {"fleet": 7, "roles": {"deployment": {"threshold": 1, "keys": {"k": KEY}}}},
        {"fleet": "acme", "roles": {}},
        {"fleet": "acme", "roles": {"deployment": {"threshold": 1, "keys": []}}},
        {"fleet": "acme", "roles": {"deployment": {"threshold": 1, "keys": {"k": KEY}}, "other": {}}},
    ],
    ids=str,
)
def test_another_fleet_role_is_refused(value: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_fleet_role(value)
    assert caught.value.code == "root"


@pytest.mark.parametrize(
    "name", ["a", "a/b", "__init__.py", ".hidden", "a b", "..a", "...", "é", "a@b", "x" * 255, "/".join("abcdefgh")]
)
def test_plain_names_are_allowed(name: str) -> None:
    assert check_member_name(name) == name


@given(st.text(max_size=40))
def test_an_allowed_name_cannot_leave_its_directory(name: str) -> None:
    try:
        check_member_name(name)
    except ProtocolError as error:
        assert error.code == "archive"
    else:
        assert not name.startswith("/")
        assert not {"", ".", ".."} & set(name.split("/"))
        assert "\0" not in name


def test_folding_is_stable_for_every_character() -> None:
    for point in range(0x110000):
        once = fold(chr(point))
        assert fold(once) == once


def test_a_tree_is_a_tree_on_every_file_system() -> None:
    names = MemberNames()
    names.add("Dir", directory=True)
    names.add("Dir/file", directory=False)
    for twin in ("dir", "DIR", "Dir"):
        with pytest.raises(ProtocolError):
            names.add(twin, directory=True)
    with pytest.raises(ProtocolError):
        names.add("Dir/file/below", directory=False)
    with pytest.raises(ProtocolError):
        names.add("other/file", directory=False)
    assert len(names) == 2
