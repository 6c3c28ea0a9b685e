"""The draft of the catalogue and the rules that it keeps."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_tools import catalogue, ceremony, description, draft, signing
from firmware_tools.fleet import Fleet
from firmware_tools.metadata import entry, floors
from fleet_protocol.catalogue import Requirement
from fleet_protocol.errors import PolicyError

Make = Callable[..., Path]


def drafted(fleet: Fleet) -> dict[str, int]:
    """Counter by path in the draft."""
    document = draft.load(fleet, "targets")
    assert document is not None
    targets = document.metadata.signed
    return {path: entry(targets, path)[0].counter for path in targets.targets}  # type: ignore[union-attr,arg-type]


def sign_all(fleet: Fleet, now_s: float) -> None:
    keys = [fleet.offline / "targets-1.pem", fleet.offline / "targets-2.pem"]
    assert signing.sign(fleet, keys, now_s=now_s)[-1].published


def conflict(action: Callable[[], object]) -> str:
    with pytest.raises(PolicyError) as caught:
        action()
    return f"{caught.value.code}: {caught.value.detail}"


def test_add_copies_and_lists(fleet: Fleet, make_artifact: Make, now_s: float) -> None:
    path = make_artifact()
    found = catalogue.add(fleet, path, now_s=now_s)
    assert fleet.artifact(found.sha256).read_bytes() == path.read_bytes()
    assert drafted(fleet) == {"my-service/1.2.0/x86_64.tar.zst": 12}
    assert catalogue.add(fleet, path, now_s=now_s) == found
    assert drafted(fleet) == {"my-service/1.2.0/x86_64.tar.zst": 12}


def test_versions_rise_by_one_over_signatures(fleet: Fleet, make_artifact: Make, now_s: float) -> None:
    for counter in (1, 2, 3):
        artifact = make_artifact(f"{counter}.tar.zst", version=f"1.{counter}", counter=counter)
        catalogue.add(fleet, artifact, now_s=now_s)
        catalogue.add(fleet, artifact, now_s=now_s)
        sign_all(fleet, now_s)
        metadata = fleet.targets()
        assert metadata is not None
        assert (metadata.signed.version, len(metadata.signed.targets)) == (1 + counter, counter)


def test_an_edit_drops_signatures_that_stood(fleet: Fleet, make_artifact: Make, now_s: float) -> None:
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    signing.sign(fleet, [fleet.offline / "targets-1.pem"], now_s=now_s)
    catalogue.set_floor(fleet, "my-service", 3, now_s=now_s)
    document = draft.load(fleet, "targets")
    assert document is not None
    assert document.tallies()[0].signed == ()


def test_a_version_is_never_used_twice(fleet: Fleet, make_artifact: Make, tree: Path, now_s: float) -> None:  # rule 4
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    (tree / "data.txt").write_text("other")
    other = make_artifact("other.tar.zst")
    assert conflict(lambda: catalogue.add(fleet, other, now_s=now_s)).startswith("conflict")
    sign_all(fleet, now_s)
    catalogue.remove(fleet, "my-service", "1.2.0", now_s=now_s)
    assert "signed already with other bytes" in conflict(lambda: catalogue.add(fleet, other, now_s=now_s))


def test_one_counter_one_version(fleet: Fleet, make_artifact: Make, now_s: float) -> None:  # rule 1
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    same_counter = make_artifact("b.tar.zst", version="1.3.0")
    assert "counter 12" in conflict(lambda: catalogue.add(fleet, same_counter, now_s=now_s))
    same_version = make_artifact("c.tar.zst", classes=("aarch64",), counter=13)
    assert "two counters" in conflict(lambda: catalogue.add(fleet, same_version, now_s=now_s))
    assert drafted(fleet) == {"my-service/1.2.0/x86_64.tar.zst": 12}


def test_floors_hold_and_never_fall(fleet: Fleet, make_artifact: Make, now_s: float) -> None:  # rule 2
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    assert "below the floor" in conflict(lambda: catalogue.set_floor(fleet, "my-service", 13, now_s=now_s))
    catalogue.set_floor(fleet, "my-service", 12, now_s=now_s)
    catalogue.set_floor(fleet, "other", 5, now_s=now_s)
    sign_all(fleet, now_s)
    metadata = fleet.targets()
    assert metadata is not None
    assert floors(metadata.signed) == {"my-service": 12, "other": 5}
    assert "would fall" in conflict(lambda: catalogue.set_floor(fleet, "other", 4, now_s=now_s))
    old = make_artifact("old.tar.zst", version="1.0", counter=11)
    assert "below the floor" in conflict(lambda: catalogue.add(fleet, old, now_s=now_s))


@pytest.mark.parametrize(("package", "counter"), [("../x", 1), ("x", -1), ("x", True), ("x", 2**53)])
def test_a_wrong_floor_is_refused(fleet: Fleet, now_s: float, package: str, counter: int) -> None:
    assert conflict(lambda: catalogue.set_floor(fleet, package, counter, now_s=now_s)).startswith("bad-request")


def test_requirements_must_be_listed(fleet: Fleet, make_artifact: Make, now_s: float) -> None:  # rule 3
    runtime = make_artifact("runtime.tar.zst", package="runtime", version="1", counter=1)
    wanted = Requirement(package="runtime", sha256=description.read(runtime).sha256)
    needs = make_artifact("needs.tar.zst", requires=(wanted,))
    assert "not listed" in conflict(lambda: catalogue.add(fleet, needs, now_s=now_s))
    catalogue.add(fleet, runtime, now_s=now_s)
    catalogue.add(fleet, needs, now_s=now_s)
    assert "requires" in conflict(lambda: catalogue.remove(fleet, "runtime", "1", now_s=now_s))


def test_a_path_starts_with_its_package(fleet: Fleet, make_artifact: Make, now_s: float) -> None:  # rule 5
    artifact = make_artifact()
    place = description.beside(artifact)
    place.write_text(place.read_text().replace('"path":"my-service/', '"path":"other/'))
    assert conflict(lambda: catalogue.add(fleet, artifact, now_s=now_s)).startswith("conflict")


def test_remove_takes_every_artifact_of_the_release(fleet: Fleet, make_artifact: Make, now_s: float) -> None:
    catalogue.add(fleet, make_artifact("a.tar.zst"), now_s=now_s)
    catalogue.add(fleet, make_artifact("b.tar.zst", classes=("aarch64",)), now_s=now_s)
    catalogue.add(fleet, make_artifact("c.tar.zst", version="2.0", counter=20), now_s=now_s)
    assert len(catalogue.remove(fleet, "my-service", "1.2.0", now_s=now_s)) == 2
    assert drafted(fleet) == {"my-service/2.0/x86_64.tar.zst": 20}
    assert conflict(lambda: catalogue.remove(fleet, "my-service", "1.2.0", now_s=now_s)).startswith("unknown-release")


@pytest.mark.parametrize("old", ['"unpacked_size":29', '"unpacked_files":3', '"length":', '"sha256":"'])
def test_a_description_that_lies_is_refused(fleet: Fleet, make_artifact: Make, now_s: float, old: str) -> None:
    artifact = make_artifact()
    place = description.beside(artifact)
    text = place.read_text()
    if old.endswith(":"):
        new = f"{old}1"
    elif old.endswith('"'):
        new, old = f"{old}{'0' * 64}", f"{old}{description.read(artifact).sha256}"
    else:
        new = old + "0"
    place.write_text(text.replace(old, new))
    assert conflict(lambda: catalogue.add(fleet, artifact, now_s=now_s)).startswith("bad-request")
    assert not fleet.artifacts.exists()
    assert draft.load(fleet, "targets") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"path":1,"length":1,"sha256":1,"custom":1}', "\0"])
def test_a_file_that_is_no_description_is_one_line(fleet: Fleet, make_artifact: Make, now_s: float, text: str) -> None:
    artifact = make_artifact()
    description.beside(artifact).write_text(text)
    assert conflict(lambda: catalogue.add(fleet, artifact, now_s=now_s)).startswith("bad-request")
    description.beside(artifact).unlink()
    assert "missing" in conflict(lambda: catalogue.add(fleet, artifact, now_s=now_s))


def test_classes_of_the_fleet_catch_typing_errors(tmp_path: Path, make_artifact: Make, now_s: float) -> None:
    place = ceremony.init(tmp_path / "f", fleet="acme", now_s=now_s, keys=1, threshold=1, classes=["x86_64"])
    catalogue.add(place, make_artifact(), now_s=now_s)
    wrong = make_artifact("b.tar.zst", classes=("x86-64",))
    assert "x86-64" in conflict(lambda: catalogue.add(place, wrong, now_s=now_s))


def test_a_signed_draft_is_renewed_only_once_it_has_expired(fleet: Fleet, now_s: float) -> None:
    catalogue.renew(fleet, now_s=now_s)
    signing.sign(fleet, [fleet.offline / "targets-1.pem"], now_s=now_s)
    assert "conflict: " in conflict(lambda: catalogue.renew(fleet, now_s=now_s + 89 * 86_400))
    catalogue.renew(fleet, now_s=now_s + 91 * 86_400)
    sign_all(fleet, now_s + 91 * 86_400)


def test_renew_changes_the_expiry_alone(fleet: Fleet, make_artifact: Make, now_s: float) -> None:
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    sign_all(fleet, now_s)
    before = fleet.targets()
    later_s = now_s + 80 * 86_400
    catalogue.renew(fleet, now_s=later_s)
    sign_all(fleet, later_s)
    after = fleet.targets()
    assert before is not None
    assert after is not None
    assert after.signed.targets == before.signed.targets
    assert after.signed.version == before.signed.version + 1
    assert after.signed.expires.timestamp() == later_s + 90 * 86_400


def test_a_directory_that_is_no_fleet_is_one_line(tmp_path: Path, make_artifact: Make) -> None:
    assert "init" in conflict(lambda: catalogue.add(Fleet(tmp_path / "none"), make_artifact(), now_s=time.time()))


def test_a_device_finds_exactly_one_artifact(fleet: Fleet, make_artifact: Make, now_s: float) -> None:  # rule 6
    catalogue.add(fleet, make_artifact(classes=("x86_64", "aarch64")), now_s=now_s)
    again = make_artifact("b.tar.zst", classes=("aarch64", "armv7"))
    assert "two targets are for one class, aarch64" in conflict(lambda: catalogue.add(fleet, again, now_s=now_s))
