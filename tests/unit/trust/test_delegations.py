"""A catalogue with a delegated role, which the stock client follows over `trust/delegated/<role>/<N>`."""

import json
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Snapshot, Targets

from fleet_protocol.topics import DELEGATED, TARGETS
from tests.fakes.trust_device import TrustDevice, enrolled, still_obeys
from tests.fakes.trust_fleet import SPECIFICATION, Fleet, ed25519, meta_file


class Vendor:
    """A role that may list everything below `vendor/`."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.keys = ed25519(2)
        self.listed = {key.public_key.keyid: key.public_key for key in self.keys}
        self.threshold = 2
        self.target = fleet.add_release("vendor-app", "1.0.0", 1, path="vendor/app")

    def publish(self, signers: list[CryptoSigner] | None = None) -> bytes:
        """Move the vendor's release from top-level targets to its own role, and publish all of it."""
        fleet, role = self.fleet, "vendor"
        for name in fleet.versions:
            fleet.versions[name] += 1
        version = fleet.versions["targets"]
        everything = fleet.make_targets(version)
        own = Targets(version, SPECIFICATION, everything.expires)
        own.targets["vendor/app"] = everything.targets.pop("vendor/app")
        delegated = DelegatedRole(role, list(self.listed), self.threshold, terminating=False, paths=["vendor/*"])
        everything.delegations = Delegations(dict(self.listed), {role: delegated})
        targets = fleet.sign_metadata(everything, fleet.keys.targets)
        data = fleet.sign_metadata(own, self.keys if signers is None else signers)
        snapshot = Snapshot(fleet.versions["snapshot"], SPECIFICATION, everything.expires)
        snapshot.meta = {"targets.json": meta_file(version, targets), "vendor.json": meta_file(version, data)}
        fleet.published[fleet.topic(TARGETS, version=version)] = targets
        fleet.published[fleet.topic(DELEGATED, role=role, version=version)] = data
        fleet.put_snapshot(fleet.sign_metadata(snapshot, fleet.keys.snapshot))
        return targets


def refusal(fleet: Fleet, device: TrustDevice) -> str | None:
    """What becomes of a deployment of the vendor's release."""
    plan = device.offer_manifest(fleet.manifest(fleet.deployment("vendor-app", "1.0.0")))
    code: str | None = plan["deployments"][0]["refusal"]
    return code


def test_a_release_of_a_delegated_role_is_found_and_kept(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    vendor = Vendor(fleet)
    vendor.publish()
    assert refusal(fleet, device) is None
    assert any(name.endswith("/vendor.json") for name in device.trusted())
    asked = len(device.asked)
    assert refusal(fleet, device) is None
    assert [topic.split("/v1/")[1] for topic in device.asked[asked:]] == ["trust/root/2", "trust/timestamp"]


@pytest.mark.parametrize("count", [0, 1])
def test_a_delegated_role_that_too_few_signed(tmp_path: Path, count: int) -> None:
    """A2 below the top level: the role's own releases are refused, and no others."""
    fleet, device = enrolled(tmp_path)
    vendor = Vendor(fleet)
    vendor.publish(vendor.keys[:count])
    assert refusal(fleet, device) in ("signature", "threshold", "metadata")
    still_obeys(fleet, device)


def test_a_delegated_role_with_one_key_under_two_ids(tmp_path: Path) -> None:
    """A4 below the top level."""
    fleet, device = enrolled(tmp_path)
    vendor = Vendor(fleet)
    public = vendor.keys[0].public_key.keyval["public"].upper()
    twin = SSlibKey("f" * 64, "ed25519", "ed25519", {"public": public})
    good, vendor.listed = vendor.listed, {**vendor.listed, twin.keyid: twin}
    targets = vendor.publish()
    assert device.refused_metadata(targets) == "threshold"
    vendor.listed = good
    vendor.publish()
    still_obeys(fleet, device)


@pytest.mark.parametrize("threshold", [True, "2"])
def test_a_delegated_role_with_a_threshold_that_is_no_integer(tmp_path: Path, threshold: object) -> None:
    """A5 below the top level: refused before the library sees it, whatever it would make of it."""
    fleet, device = enrolled(tmp_path)
    raw = json.loads(Vendor(fleet).publish())
    raw["signed"]["delegations"]["roles"][0]["threshold"] = threshold
    device.documents = {**fleet.published, fleet.topic(TARGETS, version=2): json.dumps(raw).encode()}
    assert device.refused_metadata(b"") == "metadata"
    device.documents = None
    still_obeys(fleet, device)


def test_a_delegated_role_that_is_missing_can_be_waited_for(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    Vendor(fleet).publish()
    gone = fleet.topic(DELEGATED, role="vendor", version=2)
    device.documents = {topic: data for topic, data in fleet.published.items() if topic != gone}
    assert device.attempt(lambda: refusal(fleet, device)) == "absent"
    device.documents = None
    assert refusal(fleet, device) is None
