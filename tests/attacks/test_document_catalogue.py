"""A14, A17 to A20, A22, A28, A29: what the manifest says against what the catalogue says."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol import envelope
from fleet_protocol.catalogue import Requirement
from fleet_protocol.manifest import Deployment, Fallback, Target
from fleet_protocol.topics import SNAPSHOT, TARGETS, TIMESTAMP
from tests.fakes.trust_device import TrustDevice, enrolled, still_obeys
from tests.fakes.trust_fleet import SALT, Fleet, plain


def refusal(fleet: Fleet, device: TrustDevice, bad: Deployment) -> str | None:
    """The code of one deployment; the good one beside it in the same manifest must not suffer."""
    good = fleet.deployment("my-service", "1.1.0", id="d-good")
    plan = device.offer_manifest(fleet.manifest(bad, good))
    rows = {row["id"]: row for row in plan["deployments"]}
    assert rows["d-good"]["refusal"] is None
    assert rows["d-good"]["release"]["targets"]
    if rows[bad.id]["refusal"] is not None:
        assert rows[bad.id]["release"]["targets"] == [], "a refused release must leave nothing to install"
    still_obeys(fleet, device)
    code: str | None = rows[bad.id]["refusal"]
    return code


def changed(deployment: Deployment, **fields: Any) -> Deployment:
    """A deployment whose first target is changed."""
    return replace(deployment, targets=(replace(deployment.targets[0], **fields), *deployment.targets[1:]))


MISMATCHES: dict[str, Callable[[Deployment], Deployment]] = {
    "length": lambda d: changed(d, length=d.targets[0].length + 1),
    "shorter": lambda d: changed(d, length=d.targets[0].length - 1),
    "sha256": lambda d: changed(d, sha256="0" * 64),
    "version": lambda d: replace(d, version="1.0.1"),
    "counter": lambda d: replace(d, counter=2),
    "package": lambda d: replace(d, package="other"),
    "path": lambda d: changed(d, path="my-service/1.1.0/x86_64.tar.zst"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_target_that_differs_from_its_entry_in_any_field(tmp_path: Path, name: str) -> None:
    """A14."""
    fleet, device = enrolled(tmp_path)
    bad = MISMATCHES[name](fleet.deployment("my-service", "1.0.0", id="d-bad"))
    assert refusal(fleet, device, bad) == "mismatch"


def test_a_release_of_one_version_with_the_bytes_of_another(tmp_path: Path) -> None:
    """A14: both are in the catalogue."""
    fleet, device = enrolled(tmp_path)
    old, new = fleet.deployment("my-service", "1.0.0"), fleet.deployment("my-service", "1.1.0")
    assert refusal(fleet, device, replace(new, id="d-bad", targets=old.targets)) == "mismatch"


def test_two_targets_for_one_class(tmp_path: Path) -> None:
    """A14: the online key does not get to choose among artifacts of one class."""
    fleet, device = enrolled(tmp_path)
    fleet.add_release("my-service", "2.0.0", 3, data=b"one", path="my-service/2.0.0/one")
    fleet.add_release("my-service", "2.0.0", 3, data=b"two", path="my-service/2.0.0/two")
    fleet.publish()
    assert refusal(fleet, device, fleet.deployment("my-service", "2.0.0")) == "mismatch"


@pytest.mark.parametrize("mix", ["snapshot", "targets"])
def test_metadata_of_two_versions_mixed(tmp_path: Path, mix: str) -> None:
    """A14: old and new documents, each validly signed."""
    fleet, device = enrolled(tmp_path)
    fleet.publish()
    old = fleet.retained()
    fleet.publish()
    kind = SNAPSHOT if mix == "snapshot" else TARGETS
    device.documents = {**fleet.published, fleet.topic(kind, version=3): old[fleet.topic(kind, version=2)]}
    assert device.refused_metadata(old[fleet.topic(kind, version=2)]) == "mismatch"
    device.documents = {**fleet.published, fleet.topic(TIMESTAMP): old[fleet.topic(TIMESTAMP)]}
    assert device.attempt(device.refresh) == "replay"
    device.documents = None
    still_obeys(fleet, device)


def test_a_release_for_other_hardware(tmp_path: Path) -> None:
    """A17: the class comes from the offline document."""
    fleet, device = enrolled(tmp_path)
    fleet.add_release("my-service", "2.0.0", 3, classes=["aarch64", "armv7"])
    fleet.publish()
    assert refusal(fleet, device, fleet.deployment("my-service", "2.0.0")) == "class"


def test_of_many_classes_the_device_gets_its_own(tmp_path: Path) -> None:
    fleet, _ = enrolled(tmp_path / "first")
    for device_class in ("aarch64", "x86_64", "armv7"):
        fleet.add_release("my-service", "2.0.0", 3, classes=[device_class], data=device_class.encode())
    fleet.publish()
    for device_class in ("aarch64", "x86_64", "armv7"):
        device = TrustDevice(fleet, tmp_path / device_class, device_class=device_class)
        plan = device.offer_manifest(fleet.manifest(fleet.deployment("my-service", "2.0.0")))
        (target,) = plan["deployments"][0]["release"]["targets"]
        assert target["path"] == f"my-service/2.0.0/{device_class}.tar.zst"


def test_a_release_below_the_floor(tmp_path: Path) -> None:
    """A18: recalled or not, and as a fallback neither."""
    fleet, device = enrolled(tmp_path)
    fleet.floors = {"my-service": 2}
    fleet.publish()
    assert refusal(fleet, device, fleet.deployment("my-service", "1.0.0")) == "floor"
    assert refusal(fleet, device, fleet.deployment("my-service", "1.0.0", state="recalled")) == "floor"
    back = fleet.deployment("my-service", "1.1.0", fallback="1.0.0")
    plan = device.offer_manifest(fleet.manifest(back))
    assert (plan["deployments"][0]["fallback"], plan["floors"]) == (None, {"my-service": 2})
    bare = replace(back, fallback=Fallback(version="1.0.0", counter=1, targets=()))
    assert device.offer_manifest(fleet.manifest(bare))["deployments"][0]["fallback"] is None


def test_a_release_that_is_not_in_the_catalogue(tmp_path: Path) -> None:
    """A19."""
    fleet, device = enrolled(tmp_path)
    unlisted = fleet.fork()
    unlisted.add_release("my-service", "6.6.6", 66)
    assert refusal(fleet, device, unlisted.deployment("my-service", "6.6.6")) == "unlisted"


def test_a_release_that_has_left_the_catalogue(tmp_path: Path) -> None:
    """A19: a stolen online key does not bring old releases back."""
    fleet, device = enrolled(tmp_path)
    gone = fleet.deployment("my-service", "1.0.0", id="d-gone")
    fleet.remove_release("my-service", "1.0.0")
    fleet.publish()
    assert refusal(fleet, device, gone) == "unlisted"


def test_a_catalogue_alone_installs_nothing(tmp_path: Path) -> None:
    """A20: new targets by stolen offline keys are no plan; only a manifest makes one."""
    fleet, device = enrolled(tmp_path)
    fleet.add_release("my-service", "9.9.9", 99)
    fleet.publish()
    answer = device.refresh()
    assert set(answer) == {"root", "timestamp", "snapshot", "targets"}


@pytest.mark.parametrize("member", ["kind", "install", "classes", "format", "unpacked_size", "requires", "exec", "x"])
@pytest.mark.parametrize("place", ["manifest", "deployment", "target", "fallback", "source"])
def test_a_manifest_that_would_override_the_catalogue(tmp_path: Path, place: str, member: str) -> None:
    """A22: only addresses may be given; every member that is not the manifest's own is refused."""
    fleet, device = enrolled(tmp_path)
    deployment = fleet.deployment("my-service", "1.1.0", fallback="1.0.0", urls=["https://example.org/a"])
    document = fleet.manifest_document(deployment)
    payload = {"_type": "fairlead.manifest", "v": 1, **plain(asdict(document))}
    row = payload["deployments"][0]
    places = {
        "manifest": payload,
        "deployment": row,
        "target": row["targets"][0],
        "fallback": row["fallback"],
        "source": row["sources"][0],
    }
    places[place][member] = {"exec": ["/bin/sh"]}
    data = fleet.sign_payload(json.dumps(payload).encode(), envelope.MANIFEST_TYPE)
    assert device.refused(lambda: device.offer_manifest(data)) == "schema"
    still_obeys(fleet, device)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("kind", "container"),
        ("kind", ""),
        ("kind", None),
        ("format", "zip"),
        ("format", "tar.gz"),
        ("classes", []),
        ("classes", "x86_64"),
        ("counter", True),
        ("counter", "1"),
        ("counter", -1),
        ("unpacked_size", 2**50),
        ("unpacked_files", "1"),
        ("install", None),
        ("install", {"exec": [], "stop_s": 1, "check": {"kind": "tcp"}}),
        ("install", {"exec": [], "stop_s": 1, "check": None, "script": "rm -rf /"}),
        ("package", "../../etc"),
        ("version", "1.0/.."),
        ("text", "x" * 5_000),
        ("more", 1),
    ],
)
def test_a_catalogue_entry_that_the_device_does_not_understand(tmp_path: Path, member: str, value: Any) -> None:
    """A28: refused by itself; the rest of the catalogue stays usable."""
    fleet, device = enrolled(tmp_path)
    fleet.add_release("other", "1.0.0", 1)
    deployment = fleet.deployment("other", "1.0.0")
    for role in fleet.versions:
        fleet.versions[role] += 1
    targets = fleet.make_targets(2)
    targets.targets[deployment.targets[0].path].unrecognized_fields["custom"][member] = value
    fleet.put_targets(fleet.sign_metadata(targets, fleet.keys.targets), version=2)
    assert refusal(fleet, device, deployment) == "schema"


@pytest.mark.parametrize(
    "floors", [[], "1", {"my-service": True}, {"my-service": -1}, {"../x": 1}, {"my-service": "1"}]
)
def test_floors_that_the_device_does_not_understand(tmp_path: Path, floors: Any) -> None:
    """A28: floors that cannot be read are no licence to go below them."""
    fleet, device = enrolled(tmp_path)
    for role in fleet.versions:
        fleet.versions[role] += 1
    targets = fleet.make_targets(2)
    targets.unrecognized_fields["x-floor"] = floors
    fleet.put_targets(fleet.sign_metadata(targets, fleet.keys.targets), version=2)
    assert device.refused(device.refresh) == "schema"
    fleet.versions = dict.fromkeys(fleet.versions, 2)
    fleet.publish()
    still_obeys(fleet, device)


def test_a_dependency_that_is_unlisted_or_another(tmp_path: Path) -> None:
    """A29: by package and digest."""
    fleet, device = enrolled(tmp_path)
    base = fleet.add_release("base", "1.0.0", 1)
    other = fleet.add_release("other", "1.0.0", 1)
    cases = {
        "ok": Requirement(package="base", sha256=base.sha256),
        "gone": Requirement(package="base", sha256="0" * 64),
        "swapped": Requirement(package="base", sha256=other.sha256),
    }
    for name, requirement in cases.items():
        fleet.add_release(f"app-{name}", "1.0.0", 1, requires=(requirement,))
    fleet.publish()
    assert refusal(fleet, device, fleet.deployment("app-ok", "1.0.0")) is None
    assert refusal(fleet, device, fleet.deployment("app-gone", "1.0.0")) == "requires"
    assert refusal(fleet, device, fleet.deployment("app-swapped", "1.0.0")) == "requires"
    fleet.remove_release("base", "1.0.0")
    fleet.publish()
    assert refusal(fleet, device, fleet.deployment("app-ok", "1.0.0", id="d-later")) == "requires"


def test_a_fallback_that_contradicts_the_catalogue_refuses_its_deployment(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    good = fleet.deployment("my-service", "1.1.0", fallback="1.0.0", id="d-bad")
    assert good.fallback is not None
    target = replace(good.fallback.targets[0], sha256="0" * 64)
    assert refusal(fleet, device, replace(good, fallback=replace(good.fallback, targets=(target,)))) == "mismatch"
    assert refusal(fleet, device, replace(good, fallback=replace(good.fallback, counter=7))) == "mismatch"


def test_a_fallback_that_is_not_to_be_had_is_none(tmp_path: Path) -> None:
    """The deployment itself is as good as ever; there is only nothing to go back to."""
    fleet, device = enrolled(tmp_path)
    fleet.add_release("my-service", "0.9.0", 1, classes=["aarch64"])
    fleet.publish()
    unlisted = Fallback(version="0.1.0", counter=1, targets=(Target(path="no/such", length=1, sha256="0" * 64),))
    good = fleet.deployment("my-service", "1.1.0")
    for fallback in (unlisted, fleet.fallback("my-service", "0.9.0")):
        plan = device.offer_manifest(fleet.manifest(replace(good, fallback=fallback)))
        (row,) = plan["deployments"]
        assert (row["refusal"], row["fallback"]) == (None, None)


def test_a_recall_of_a_release_that_left_the_catalogue_still_names_its_fallback(tmp_path: Path) -> None:
    """What is bad is often withdrawn from the catalogue first; the way back must stay open."""
    fleet, device = enrolled(tmp_path)
    recalled = fleet.deployment("my-service", "1.1.0", fallback="1.0.0", state="recalled")
    fleet.remove_release("my-service", "1.1.0")
    fleet.publish()
    (row,) = device.offer_manifest(fleet.manifest(recalled))["deployments"]
    assert row["refusal"] == "unlisted"
    assert [target["path"] for target in row["fallback"]["targets"]] == ["my-service/1.0.0/x86_64.tar.zst"]


def test_only_the_sources_of_an_artifact_are_its_sources(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    urls = ["https://a.example/1", "https://b.example/1"]
    deployment = fleet.deployment("my-service", "1.1.0", urls=urls, fallback="1.0.0", salt=SALT)
    (row,) = device.offer_manifest(fleet.manifest(deployment))["deployments"]
    assert [target["urls"] for target in row["release"]["targets"]] == [urls]
    assert [target["urls"] for target in row["fallback"]["targets"]] == [[]]
