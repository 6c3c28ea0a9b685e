"""A7, A11: the root chain, and getting well again after a key was stolen."""

from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from fleet_protocol.limits import JSON_INTEGER
from fleet_protocol.topics import ROOT, TIMESTAMP
from tests.fakes.trust_device import TrustDevice, enrolled, still_obeys
from tests.fakes.trust_fleet import Fleet, ed25519


def offered_root(fleet: Fleet, device: TrustDevice, data: bytes, version: int = 2) -> str:
    """The code for which a root on its topic is refused."""
    device.documents = {**fleet.published, fleet.topic(ROOT, version=version): data}
    code = device.refused(device.refresh)
    device.documents = None
    return code


@pytest.mark.parametrize("version", [1, 3, 4, 1000, 0, -1])
def test_a_root_that_skips_or_repeats_a_version(tmp_path: Path, version: int) -> None:
    """A7."""
    fleet, device = enrolled(tmp_path)
    root = fleet.make_root(2)
    root.version = version
    assert offered_root(fleet, device, fleet.sign_metadata(root, fleet.keys.root)) == "root"
    still_obeys(fleet, device)


def test_a_root_that_only_the_old_or_only_the_new_keys_signed(tmp_path: Path) -> None:
    """A7: both thresholds, each by its own."""
    fleet, device = enrolled(tmp_path)
    old, new = list(fleet.keys.root), ed25519(3)
    fleet.keys.root = new
    root = fleet.make_root(2)
    insufficient: list[list[CryptoSigner]] = [[], old, new, old + new[:1], old[:1] + new, old[:1] + new[:1], ed25519(3)]
    for signers in insufficient:
        assert offered_root(fleet, device, fleet.sign_metadata(root, signers)) == "root"
    enough = fleet.sign_metadata(root, old[:2] + new[1:])
    fleet.published[fleet.topic(ROOT, version=2)] = enough
    fleet.roots.append(enough)
    assert device.refresh()["root"] == 2
    still_obeys(fleet, device)


def test_a_root_of_another_fleet_or_of_none(tmp_path: Path) -> None:
    """A7, A16: whatever it is signed by."""
    fleet, device = enrolled(tmp_path)
    root = fleet.make_root(2)
    member = root.unrecognized_fields["x-fleet"]
    for bad, code in (
        (None, "root"),
        ({}, "root"),
        ({**member, "more": 1}, "root"),
        ({**member, "fleet": 5}, "root"),
        ({**member, "fleet": "other"}, "scope"),
        ({**member, "roles": {}}, "root"),
        ({**member, "roles": {**member["roles"], "more": member["roles"]["deployment"]}}, "root"),
    ):
        root.unrecognized_fields["x-fleet"] = bad
        assert offered_root(fleet, device, fleet.sign_metadata(root, fleet.keys.root)) == code
    still_obeys(fleet, device)


def test_a_chain_of_roots_is_walked_from_where_the_device_slept(tmp_path: Path) -> None:
    """Every key has been replaced, some twice, and a manifest is the first thing that the device hears."""
    fleet, device = enrolled(tmp_path)
    for _ in range(3):
        fleet.rotate(root=ed25519(3), deployment=ed25519(1))
        fleet.rotate(timestamp=ed25519(1), snapshot=ed25519(1), targets=ed25519(3))
    fleet.publish()
    still_obeys(fleet, device)
    assert device.refresh()["root"] == 7


def test_a_bad_root_in_the_middle_does_not_keep_the_device_from_its_repair(tmp_path: Path) -> None:
    """A10: a newest root that is refused is not kept, and is a mere step once a better one follows."""
    fleet, device = enrolled(tmp_path)
    root = fleet.make_root(2)
    root.unrecognized_fields.pop("x-fleet")
    bad = fleet.sign_metadata(root, fleet.keys.root)
    fleet.published[fleet.topic(ROOT, version=2)] = bad
    fleet.roots.append(bad)
    assert device.refused(device.refresh) == "root"
    fleet.rotate(deployment=ed25519(1))
    still_obeys(fleet, device)


def test_a_rotated_deployment_key_signs_nothing_any_more(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    stolen = fleet.keys.deployment
    fleet.rotate(deployment=ed25519(1))
    device.refresh()
    manifest = fleet.manifest(fleet.deployment(), signers=stolen)
    assert device.refused(lambda: device.offer_manifest(manifest)) == "signature"
    assignment = fleet.assignment(signers=stolen)
    assert device.refused(lambda: device.offer_assignment(assignment)) == "signature"
    still_obeys(fleet, device)


def test_a_huge_sequence_is_forgotten_with_the_key_that_signed_it(tmp_path: Path) -> None:
    """A11: manifest, assignment and commands."""
    fleet, device = enrolled(tmp_path)
    stolen = fleet.fork()
    device.offer_manifest(stolen.manifest(stolen.deployment(), sequence=JSON_INTEGER))
    device.offer_assignment(stolen.assignment(sequence=JSON_INTEGER))
    for number in range(300):
        device.offer_command(stolen.command(id=f"c-{number}", expires=f"{3000 + number}-01-01T00:00:00Z"))
    ours = fleet.manifest(fleet.deployment())
    assert device.refused(lambda: device.offer_manifest(ours)) == "replay"
    assert device.refused(lambda: device.offer_command(fleet.command(id="ours"))) == "command"
    fleet.rotate(deployment=ed25519(1))
    still_obeys(fleet, device)
    assert device.offer_assignment(fleet.assignment())["sequence"] == 2
    assert device.offer_command(fleet.command(id="c-1"))["id"] == "c-1"
    replayed = stolen.manifest(stolen.deployment(), sequence=JSON_INTEGER)
    assert device.refused(lambda: device.offer_manifest(replayed)) == "signature"


def test_floors_outlive_a_rotation_that_leaves_their_keys_in_office(tmp_path: Path) -> None:
    """A new key beside the old one is no reason to forget."""
    fleet, device = enrolled(tmp_path)
    old = fleet.manifest(fleet.deployment())
    newer = fleet.manifest(fleet.deployment())
    device.offer_manifest(newer)
    fleet.rotate(deployment=[*fleet.keys.deployment, *ed25519(1)])
    device.refresh()
    assert device.refused(lambda: device.offer_manifest(old)) == "replay"
    assert device.offer_manifest(newer)["sequence"] == 3
    still_obeys(fleet, device)


def test_a_huge_timestamp_version_is_forgotten_with_the_key_that_signed_it(tmp_path: Path) -> None:
    """A11 for the catalogue: TUF's fast-forward recovery."""
    fleet, device = enrolled(tmp_path)
    stolen = fleet.fork()
    stolen.versions = {"targets": 1, "snapshot": 10**8, "timestamp": 10**8}
    stolen.put_targets(fleet.published["fleet/v1/trust/targets/1"], version=1)
    device.documents = stolen.retained()
    assert device.refresh()["timestamp"] == 10**8
    device.documents = None
    fleet.publish()
    assert device.refused(device.refresh) == "replay"
    fleet.rotate(timestamp=ed25519(1), snapshot=ed25519(1))
    fleet.publish()
    assert device.refresh() == {"root": 2, "timestamp": 3, "snapshot": 3, "targets": 3}
    still_obeys(fleet, device)


def test_an_expired_root_leads_on_but_carries_nothing(tmp_path: Path) -> None:
    """A12 for the root."""
    fleet, device = enrolled(tmp_path)
    expired = fleet.sign_metadata(fleet.make_root(2, days=-1), fleet.keys.root)
    fleet.published[fleet.topic(ROOT, version=2)] = expired
    fleet.roots.append(expired)
    assert device.refused_metadata(b"") == "expired"
    fleet.rotate()
    still_obeys(fleet, device)


def test_a_timestamp_that_is_missing_can_be_waited_for(tmp_path: Path) -> None:
    """M1: an empty or missing document is the network's fault, and no verdict."""
    fleet, device = enrolled(tmp_path)
    topic = fleet.topic(TIMESTAMP)
    for missing in (
        {key: data for key, data in fleet.published.items() if key != topic},
        {**fleet.published, topic: b""},
    ):
        device.documents = missing
        assert device.refused(device.refresh) == "absent"
    device.documents = None
    still_obeys(fleet, device)
