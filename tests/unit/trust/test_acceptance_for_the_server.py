"""The same rules where the server asks them before it publishes (S2): for devices of every class."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_protocol.acceptance import CatalogueTarget, check_deployment, match, open_manifest
from fleet_protocol.catalogue import Requirement
from fleet_protocol.envelope import KeySet
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import Deployment, Fallback
from tests.fakes.trust_fleet import Fleet, ed25519


class Listed:
    """A catalogue in memory."""

    def __init__(self, fleet: Fleet) -> None:
        self._rows = {
            row.target.path: CatalogueTarget(length=row.target.length, sha256=row.target.sha256, info=row.info)
            for row in fleet.releases
        }
        self._floors: Mapping[str, int] = fleet.floors

    def target(self, path: str) -> CatalogueTarget | None:
        return self._rows.get(path)

    def floor(self, package: str) -> int:
        return self._floors.get(package, 0)

    def lists(self, package: str, sha256: str) -> bool:
        return any(row.sha256 == sha256 and row.info.package == package for row in self._rows.values())


def fleet_of_two_classes() -> Fleet:
    fleet = Fleet()
    for version, counter in (("1.0.0", 1), ("2.0.0", 2)):
        for device_class in ("aarch64", "x86_64"):
            fleet.add_release("app", version, counter, classes=[device_class], data=f"{version}{device_class}".encode())
    return fleet


def code(fleet: Fleet, deployment: Deployment) -> str | None:
    try:
        check_deployment(deployment, Listed(fleet))
    except ProtocolError as error:
        return error.code
    return None


def test_a_good_deployment_passes_and_each_class_gets_its_part() -> None:
    fleet = fleet_of_two_classes()
    deployment = fleet.deployment("app", "2.0.0", fallback="1.0.0")
    assert code(fleet, deployment) is None
    for device_class in ("aarch64", "x86_64"):
        matched = match(deployment, Listed(fleet), device_class)
        (part,), (back,) = matched.parts, matched.fallback_parts
        assert part.info.classes == back.info.classes == (device_class,)
    assert match(deployment, Listed(fleet), "armv7").refusal == "class"


def test_one_bad_target_of_another_class_refuses_it_for_all() -> None:
    """A server finds out what only some devices would."""
    fleet = fleet_of_two_classes()
    good = fleet.deployment("app", "2.0.0")
    first, second = good.targets
    assert code(fleet, replace(good, targets=(first, replace(second, length=1)))) == "mismatch"
    assert (
        match(replace(good, targets=(first, replace(second, length=1))), Listed(fleet), "aarch64").refusal == "mismatch"
    )


@pytest.mark.parametrize(
    ("fallback", "wanted"),
    [
        (lambda fleet: fleet.fallback("app", "1.0.0"), None),
        (lambda fleet: Fallback(version="1.0.0", counter=1, targets=()), None),
        (lambda fleet: replace(fleet.fallback("app", "1.0.0"), counter=3), "mismatch"),
        (lambda fleet: replace(fleet.fallback("app", "1.0.0"), version="0.0.1"), "mismatch"),
    ],
)
def test_a_server_publishes_no_bad_fallback(fallback: object, wanted: str | None) -> None:
    fleet = fleet_of_two_classes()
    assert callable(fallback)
    deployment = replace(fleet.deployment("app", "2.0.0"), fallback=fallback(fleet))
    assert code(fleet, deployment) == wanted


def test_a_server_publishes_nothing_below_a_floor_nor_unlisted_nor_incomplete() -> None:
    fleet = fleet_of_two_classes()
    deployment = fleet.deployment("app", "2.0.0", fallback="1.0.0")
    fleet.floors = {"app": 2}
    assert code(fleet, deployment) == "floor"
    assert code(fleet, replace(deployment, fallback=None)) is None
    fleet.floors = {"app": 3}
    assert code(fleet, replace(deployment, fallback=None)) == "floor"
    fleet.floors = {}
    fleet.remove_release("app", "1.0.0")
    assert code(fleet, deployment) == "unlisted"
    needed = Requirement(package="base", sha256=hashlib.sha256(b"base").hexdigest())
    fleet.add_release("app", "2.0.0", 2, classes=["x86_64"], data=b"2.0.0x86_64", requires=(needed,))
    assert code(fleet, replace(deployment, fallback=None)) == "requires"
    fleet.add_release("base", "1.0.0", 1, data=b"base")
    assert code(fleet, replace(deployment, fallback=None)) is None


def test_a_known_manifest_keeps_the_mark_that_stands(tmp_path: Path) -> None:
    """Signing the same payload with other keys of the role moves nothing."""
    fleet = fleet_of_two_classes()
    keys = ed25519(2)
    role = KeySet(1, {key.public_key.keyid: key.public_key for key in keys})
    document = fleet.manifest_document(fleet.deployment("app", "2.0.0"))
    first, second = (fleet.sign(document, "application/vnd.fairlead.manifest.v1+json", [key]) for key in keys)
    now_s = fleet.now.timestamp()
    opened = open_manifest(first, role=role, fleet="acme", group="line-1", now_s=now_s)
    again = open_manifest(second, role=role, fleet="acme", group="line-1", now_s=now_s, mark=opened.mark)
    assert (opened.known, again.known) == (False, True)
    assert again.mark == opened.mark
