"""A4 and A5 at the ceremony: no root that a device would refuse is ever made, signed or followed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import SerializationError

from firmware_tools import catalogue, ceremony, keys, signing
from firmware_tools.fleet import Fleet
from firmware_tools.root_chain import read_root, verify_chain
from firmware_tools.rotation import KeyChange, rotate
from fleet_protocol.errors import FleetError, PolicyError, ProtocolError

NOW_S = 1_800_000_000.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return ceremony.init(tmp_path_factory.mktemp("acme") / "fleet", fleet="acme", now_s=NOW_S)


def forged(fleet: Fleet, edit: Callable[[Any], None]) -> bytes:
    """The first root, edited, and then signed again by every root key: only its content is wrong."""
    document = json.loads((fleet.metadata / "1.root.json").read_text())
    edit(document["signed"])
    try:
        metadata: Metadata[Root] = Metadata.from_dict(json.loads(json.dumps(document)))
    except (ValueError, TypeError, KeyError):
        return json.dumps(document).encode()
    metadata.signatures.clear()
    try:
        for path in sorted(fleet.offline.glob("root-*.pem")):
            metadata.sign(keys.load(path), append=True)
    except SerializationError:
        return json.dumps(document).encode()
    return metadata.to_bytes()


def code(data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        verify_chain([data])
    return caught.value.code


def test_the_forger_makes_valid_roots_where_nothing_is_wrong(fleet: Fleet) -> None:
    assert verify_chain([forged(fleet, lambda signed: signed.update({"x-note": "hello"}))])


THRESHOLDS = [0, -1, True, False, "2", 2.0, None, 4, 2**53, [], {}]


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
@pytest.mark.parametrize("threshold", THRESHOLDS, ids=repr)
def test_a5_a_root_with_an_impossible_threshold(fleet: Fleet, role: str, threshold: object) -> None:
    data = forged(fleet, lambda signed: signed["roles"][role].update(threshold=threshold))
    assert code(data) in ("root", "metadata", "parse")


@pytest.mark.parametrize("threshold", THRESHOLDS, ids=repr)
def test_a5_a_deployment_role_with_an_impossible_threshold(fleet: Fleet, threshold: object) -> None:
    def edit(signed: Any) -> None:
        signed["x-fleet"]["roles"]["deployment"]["threshold"] = threshold

    assert code(forged(fleet, edit)) in ("root", "metadata", "parse")


@pytest.mark.parametrize(("threshold", "count"), [(t, 3) for t in THRESHOLDS] + [(1, 0), (1, True), (17, 17), (1, -1)])
def test_a5_no_ceremony_makes_such_a_root(tmp_path: Path, threshold: Any, count: Any) -> None:
    with pytest.raises(PolicyError):
        ceremony.init(tmp_path / "f", fleet="acme", now_s=NOW_S, threshold=threshold, keys=count)
    assert not (tmp_path / "f").exists()


SPELLINGS: dict[str, Callable[[str], str]] = {
    "the same": lambda public: public,
    "upper case": str.upper,
    "with spaces": lambda public: " ".join(public[at : at + 2] for at in range(0, len(public), 2)),
    "with a line break": lambda public: public[:32] + "\n" + public[32:],
}


@pytest.mark.parametrize("role", ["root", "targets"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a4_one_public_key_under_two_key_ids(fleet: Fleet, role: str, spelling: str) -> None:
    def edit(signed: Any) -> None:
        first, second, _ = signed["roles"][role]["keyids"]
        public = signed["keys"][first]["keyval"]["public"]
        signed["keys"][second]["keyval"] = {"public": SPELLINGS[spelling](public)}

    assert code(forged(fleet, edit)) in ("threshold", "root")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a4_one_deployment_key_under_two_key_ids(fleet: Fleet, spelling: str) -> None:
    def edit(signed: Any) -> None:
        role = signed["x-fleet"]["roles"]["deployment"]
        (key,) = role["keys"].values()
        twin = key | {"keyval": {"public": SPELLINGS[spelling](key["keyval"]["public"])}}
        role["keys"]["f" * 64] = twin
        role["threshold"] = 2

    assert code(forged(fleet, edit)) in ("threshold", "root")


def test_roles_that_share_a_key(fleet: Fleet) -> None:
    def edit(signed: Any) -> None:
        signed["roles"]["targets"]["keyids"][0] = signed["roles"]["root"]["keyids"][0]

    assert code(forged(fleet, edit)) == "root"


EDITS: dict[str, Callable[[Any], Any]] = {
    "no fleet": lambda signed: signed.pop("x-fleet"),
    "a fleet of another form": lambda signed: signed["x-fleet"].update(fleet="A/B"),
    "another role beside deployment": lambda signed: signed["x-fleet"]["roles"].update(other={}),
    "not consistent": lambda signed: signed.update(consistent_snapshot=False),
    "starts with version 2": lambda signed: signed.update(version=2),
    "version true": lambda signed: signed.update(version=True),
    "an unknown key type": lambda signed: next(iter(signed["keys"].values())).update(keytype="none"),
    "a key that is none": lambda signed: next(iter(signed["keys"].values())).update(keyval={"public": "00"}),
    "a key id twice": lambda signed: signed["roles"]["root"]["keyids"].append(signed["roles"]["root"]["keyids"][0]),
    "a key id of no key": lambda signed: signed["roles"]["root"]["keyids"].append("f" * 64),
    "a role less": lambda signed: signed["roles"].pop("snapshot"),
    "a role more": lambda signed: signed["roles"].update(mirrors={"keyids": [], "threshold": 1}),
    "another type": lambda signed: signed.update(_type="targets"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_root_that_breaks_a_rule_has_a_code(fleet: Fleet, name: str) -> None:
    assert code(forged(fleet, EDITS[name])) in ("root", "metadata", "schema", "type", "threshold", "parse")


def test_a2_a_threshold_that_is_not_met(fleet: Fleet) -> None:
    document = json.loads((fleet.metadata / "1.root.json").read_text())
    document["signatures"] = document["signatures"][:1]
    assert code(json.dumps(document).encode()) == "threshold"


def test_a3_one_signature_counted_twice(fleet: Fleet) -> None:
    document = json.loads((fleet.metadata / "1.root.json").read_text())
    document["signatures"] = document["signatures"][:1] * 2
    assert code(json.dumps(document).encode()) in ("threshold", "metadata")


@settings(max_examples=80)
@given(data=st.data())
def test_a1_any_altered_byte_of_a_root_is_refused_or_means_the_same(fleet: Fleet, data: st.DataObject) -> None:
    good = (fleet.metadata / "1.root.json").read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[at]))
    try:
        (root,) = verify_chain([good[:at] + bytes([byte]) + good[at + 1 :]])
    except ProtocolError:
        return
    assert root.metadata.signed_bytes == read_root(good).metadata.signed_bytes


@pytest.mark.parametrize("signers", [("root-1",), ("root-1", "root-1")])
def test_one_holder_signing_twice_is_one_vote(tmp_path: Path, signers: tuple[str, ...]) -> None:
    place = ceremony.init(tmp_path / "fleet", fleet="acme", now_s=NOW_S)
    rotate(place, KeyChange(), now_s=NOW_S)
    for name in signers:
        (result,) = signing.sign(place, [place.offline / f"{name}.pem"], now_s=NOW_S)
        assert result.published is None


@pytest.mark.parametrize("name", ["root-1", "snapshot", "timestamp", "deployment"])
def test_a6_a_key_of_another_role_signs_nothing(tmp_path: Path, name: str) -> None:
    place = ceremony.init(tmp_path / "fleet", fleet="acme", now_s=NOW_S)
    catalogue.renew(place, now_s=NOW_S)
    (file,) = place.directory.glob(f"o*line/{name}.pem")
    with pytest.raises(FleetError):
        signing.sign(place, [file], now_s=NOW_S)
