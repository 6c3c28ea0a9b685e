"""A26: a draft that was altered before signing is not signed, whoever altered it and wherever."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware_tools import catalogue, ceremony, description, packing, signing
from firmware_tools.fleet import Fleet
from firmware_tools.packing import ReleaseSpec
from firmware_tools.signing import Reviewed
from fleet_protocol.errors import FleetError, PolicyError

NOW_S = 1_800_000_000.0


def pack(base: Path, version: str, counter: int, **more: Any) -> Path:
    tree = base / f"tree-{version}"
    tree.mkdir(parents=True)
    (tree / "run").write_text(f"#!/bin/sh\necho {version}\n")
    (tree / "run").chmod(0o755)
    fields: dict[str, Any] = {"package": "app", "kind": "service", "classes": ("x86_64",), "exec": ("run",)}
    spec = ReleaseSpec(version=version, counter=counter, **(fields | more))
    packing.pack(tree, base / f"{version}.tar.zst", spec, level=3)
    return base / f"{version}.tar.zst"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """One signed release, and a draft that adds a second one."""
    place = ceremony.init(tmp_path / "fleet", fleet="acme", now_s=NOW_S)
    catalogue.add(place, pack(tmp_path, "1.0", 1), now_s=NOW_S)
    sign(place, "targets-1", "targets-2")
    catalogue.add(place, pack(tmp_path, "2.0", 2), now_s=NOW_S)
    return place


def sign(fleet: Fleet, *names: str, confirm: Callable[[Reviewed], bool] | None = None) -> list[signing.Signed]:
    files = [fleet.offline / f"{name}.pem" for name in names]
    return signing.sign(fleet, files, now_s=NOW_S, confirm=confirm)


def alter(path: Path, edit: Callable[[Any], None]) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def refused(fleet: Fleet, *names: str) -> FleetError:
    """Signing is refused, and nothing at all was written."""
    before = {path: path.read_bytes() for path in fleet.directory.rglob("*") if path.is_file()}
    with pytest.raises(FleetError) as caught:
        sign(fleet, *names)
    assert {path: path.read_bytes() for path in fleet.directory.rglob("*") if path.is_file()} == before
    return caught.value


def new_entry(document: Any) -> Any:
    return document["signed"]["targets"]["app/2.0/x86_64.tar.zst"]


def old_entry(document: Any) -> Any:
    return document["signed"]["targets"]["app/1.0/x86_64.tar.zst"]


MEASURED = {
    "length": lambda document: new_entry(document).update(length=1),
    "sha256": lambda document: new_entry(document)["hashes"].update(sha256="0" * 64),
    "unpacked size": lambda document: new_entry(document)["custom"].update(unpacked_size=2**40),
    "unpacked files": lambda document: new_entry(document)["custom"].update(unpacked_files=10),
    "old release, other bytes": lambda document: old_entry(document)["hashes"].update(sha256="0" * 64),
    "old release, other length": lambda document: old_entry(document).update(length=9),
    "two versions, one counter": lambda document: new_entry(document)["custom"].update(counter=1),
    "negative counter": lambda document: new_entry(document)["custom"].update(counter=-1),
    "boolean counter": lambda document: new_entry(document)["custom"].update(counter=True),
    "another package": lambda document: new_entry(document)["custom"].update(package="other"),
    "an unknown field": lambda document: new_entry(document)["custom"].update(run_as="root"),
    "an unknown kind": lambda document: new_entry(document)["custom"].update(kind="shell"),
    "another digest algorithm": lambda document: new_entry(document).update(hashes={"sha512": "0" * 128}),
    "no digest": lambda document: new_entry(document).update(hashes={}),
    "no description": lambda document: new_entry(document).pop("custom"),
    "a floor that is no number": lambda document: document["signed"].update({"x-floor": {"app": "1"}}),
    "a floor above the release": lambda document: document["signed"].update({"x-floor": {"app": 3}}),
    "a version skipped": lambda document: document["signed"].update(version=9),
    "the version signed before": lambda document: document["signed"].update(version=2),
    "expired": lambda document: document["signed"].update(expires="2020-01-01T00:00:00Z"),
    "a delegation": lambda document: document["signed"].update(delegations={"keys": {}, "roles": []}),
    "another type": lambda document: document["signed"].update(_type="snapshot"),
    "a float": lambda document: document["signed"].update({"x-note": 1.5}),
    "a path that climbs": lambda document: document["signed"]["targets"].update({"../x": old_entry(document)}),
    "a stranger's signature": lambda document: document["signatures"].append({"keyid": "f" * 64, "sig": "00" * 64}),
}


@pytest.mark.parametrize("name", MEASURED)
def test_an_altered_draft_is_refused_before_the_first_signature(fleet: Fleet, name: str) -> None:
    alter(fleet.draft / "targets.json", MEASURED[name])
    refused(fleet, "targets-1")


TEXTS = {
    "what it runs": lambda document: new_entry(document)["custom"]["install"].update(exec=["/bin/sh", "evil"]),
    "whom it fits": lambda document: new_entry(document)["custom"].update(classes=["aarch64"]),
    "what it says": lambda document: new_entry(document)["custom"].update(text="harmless"),
    "when it expires": lambda document: document["signed"].update(expires="2060-01-01T00:00:00Z"),
    "a floor": lambda document: document["signed"].update({"x-floor": {"other": 7}}),
    "a release less": lambda document: document["signed"]["targets"].pop("app/1.0/x86_64.tar.zst", None),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_cannot_be_measured_is_refused_after_the_first_signature(fleet: Fleet, name: str) -> None:
    sign(fleet, "targets-1")
    alter(fleet.draft / "targets.json", TEXTS[name])
    assert "altered after targets-1 signed" in refused(fleet, "targets-2").detail


@pytest.mark.parametrize("name", TEXTS)
def test_what_cannot_be_measured_is_said_and_changes_the_fingerprint(fleet: Fleet, name: str) -> None:
    """The first signer has only their eyes: every change shows in the words and in the fingerprint."""
    seen: list[Reviewed] = []

    def no(reviewed: Reviewed) -> bool:
        seen.append(reviewed)
        return False

    for _ in range(2):
        with pytest.raises(PolicyError):
            sign(fleet, "targets-1", confirm=no)
        alter(fleet.draft / "targets.json", TEXTS[name])
    assert seen[0].lines != seen[1].lines
    assert seen[0].fingerprint != seen[1].fingerprint


def test_a_new_artifact_that_is_not_at_hand_is_not_signed_blind(fleet: Fleet, tmp_path: Path) -> None:
    found = description.read(tmp_path / "2.0.tar.zst")
    fleet.artifact(found.sha256).unlink()
    assert refused(fleet, "targets-1").code == "unknown-artifact"


def test_an_old_artifact_may_be_elsewhere(fleet: Fleet, tmp_path: Path) -> None:
    fleet.artifact(description.read(tmp_path / "1.0.tar.zst").sha256).unlink()
    assert sign(fleet, "targets-1")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_an_altered_artifact_is_refused(fleet: Fleet, tmp_path: Path, version: str) -> None:
    place = fleet.artifact(description.read(tmp_path / f"{version}.tar.zst").sha256)
    data = place.read_bytes()
    place.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert refused(fleet, "targets-1").code == "bad-request"


def test_an_altered_signed_catalogue_cannot_hide_a_change(fleet: Fleet) -> None:
    """The catalogue that the draft is compared with must itself verify."""
    alter(fleet.metadata / "2.targets.json", lambda document: document["signed"].update(version=2, **{"x-y": 1}))
    assert refused(fleet, "targets-1").code == "catalogue"


def test_an_altered_root_cannot_bring_its_own_keys(fleet: Fleet) -> None:
    alter(fleet.metadata / "1.root.json", lambda document: document["signed"]["roles"]["targets"].update(threshold=1))
    assert refused(fleet, "targets-1").code == "threshold"


def test_terminal_escapes_and_line_breaks_cannot_forge_the_words(fleet: Fleet, tmp_path: Path) -> None:
    text = "fine\n  REMOVED nothing\x1b[2K\x1b[1A\u202etxt\r"
    catalogue.add(fleet, pack(tmp_path, "3.0", 3, text=text, exec=("run", "a b", "\x1b[2K")), now_s=NOW_S)
    seen: list[str] = []
    sign(fleet, "targets-1", confirm=lambda reviewed: not seen.extend(reviewed.lines))
    assert all(line.isprintable() for line in seen)
    assert any(r"says: fine\n" in line for line in seen)
    assert any(r"runs: run 'a b' '\x1b[2K'" in line for line in seen)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_altered_byte_of_a_signed_draft_is_refused_or_means_the_same(fleet: Fleet, data: st.DataObject) -> None:
    path = fleet.draft / "targets.json"
    if not json.loads(path.read_text())["signatures"]:
        sign(fleet, "targets-1")
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[at]))
    path.write_bytes(good[:at] + bytes([byte]) + good[at + 1 :])
    try:
        reviewed = signing.review(fleet, signing.draft.load(fleet, "targets"), now_s=NOW_S)  # type: ignore[arg-type]
    except FleetError:
        return
    finally:
        path.write_bytes(good)
    kept = signing.draft.load(fleet, "targets")
    assert kept is not None
    assert reviewed.draft.metadata.signed_bytes == kept.metadata.signed_bytes
