"""Rotation: a stock TUF client follows every ceremony, and the old keys are worth nothing afterwards."""

import itertools
import time
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError

from firmware_tools import ceremony, draft, keys, rotation, signing
from firmware_tools.fleet import Fleet
from firmware_tools.rotation import KeyChange
from fleet_protocol.errors import PolicyError, ProtocolError
from tests.fakes.tuf_directory import publish_online, updater


@pytest.fixture
def now_s() -> float:
    """The stock client reads the real clock."""
    return time.time()


@pytest.fixture
def fleet(tmp_path: Path, now_s: float) -> Fleet:
    return ceremony.init(tmp_path / "fleet", fleet="acme", now_s=now_s)


def offline(fleet: Fleet, *names: str) -> list[Path]:
    return [fleet.offline / f"{name}.pem" for name in names]


def test_a_stock_client_follows_every_kind_of_rotation(fleet: Fleet, tmp_path: Path, now_s: float) -> None:
    state = tmp_path / "client"
    publish_online(fleet, version=1, now_s=now_s)
    updater(fleet, state).refresh()

    steps = [
        (KeyChange(remove=("targets-2",), generate={"targets": 1}), ("root-1", "root-2"), ("targets-1", "targets-4")),
        (KeyChange(online=("snapshot", "timestamp", "deployment")), ("root-1", "root-3"), ()),
        (KeyChange(remove=("root-1",), generate={"root": 2}), ("root-1", "root-2", "root-4"), ()),
        (KeyChange(thresholds={"root": 3, "targets": 1}), ("root-2", "root-4", "root-5"), ("targets-3",)),
        (KeyChange(), ("root-2", "root-4", "root-5"), ()),
    ]
    for number, (change, root_keys, targets_keys) in enumerate(steps, start=2):
        rotation.rotate(fleet, change, now_s=now_s)
        results = signing.sign(fleet, offline(fleet, *root_keys), now_s=now_s)
        assert results[0].published == fleet.metadata / f"{number}.root.json"
        assert (draft.load(fleet, "targets") is not None) == bool(targets_keys)
        if targets_keys:
            assert signing.sign(fleet, offline(fleet, *targets_keys), now_s=now_s)[0].published
        publish_online(fleet, version=number, now_s=now_s)
        updater(fleet, state).refresh()
        assert (state / "root.json").resolve().name == f"{number}.root.json"

    fresh = updater(fleet, tmp_path / "new-device")
    fresh.refresh()
    assert [root.version for root in fleet.roots()] == [1, 2, 3, 4, 5, 6]


def test_the_old_catalogue_is_refused_after_its_keys_went(fleet: Fleet, tmp_path: Path, now_s: float) -> None:
    rotation.rotate(fleet, KeyChange(remove=("targets-1", "targets-2"), generate={"targets": 2}), now_s=now_s)
    signing.sign(fleet, offline(fleet, "root-1", "root-2"), now_s=now_s)
    publish_online(fleet, version=1, now_s=now_s)
    with pytest.raises(RepositoryError):
        updater(fleet, tmp_path / "client").refresh()


def test_the_catalogue_waits_for_the_root(fleet: Fleet, now_s: float) -> None:
    rotation.rotate(fleet, KeyChange(remove=("targets-1",), generate={"targets": 1}), now_s=now_s)
    for name in ("targets-2", "targets-4"):
        with pytest.raises(PolicyError) as caught:
            signing.sign(fleet, offline(fleet, name), now_s=now_s)
        assert caught.value.code == "wrong-state"
    results = signing.sign(fleet, offline(fleet, "root-1", "root-2", "targets-2", "targets-4"), now_s=now_s)
    assert [result.role for result in results if result.published] == ["root", "targets"]


@pytest.mark.parametrize("signers", list(itertools.combinations(["root-1", "root-2", "root-3", "root-4"], 2)))
def test_a_root_needs_both_thresholds(fleet: Fleet, now_s: float, signers: tuple[str, ...]) -> None:
    """root-1 goes, root-4 comes: two signatures suffice only where two of the old and two of the new signed."""
    rotation.rotate(fleet, KeyChange(remove=("root-1",), generate={"root": 1}), now_s=now_s)
    (result,) = signing.sign(fleet, offline(fleet, *signers), now_s=now_s)
    assert (result.published is not None) == (set(signers) == {"root-2", "root-3"})
    assert len(fleet.roots()) == (2 if result.published else 1)


@pytest.mark.parametrize(
    "change",
    [
        {"remove": ("root-9",)},
        {"remove": ("root",)},
        {"remove": ("deployment",)},
        {"remove": ("root-1", "root-2")},
        {"thresholds": {"root": 4}},
        {"thresholds": {"root": 0}},
        {"thresholds": {"targets": True}},
        {"thresholds": {"targets": -1}},
    ],
)
def test_a_change_that_breaks_a_rule_writes_nothing(fleet: Fleet, now_s: float, change: dict[str, object]) -> None:
    before = sorted(fleet.directory.rglob("*"))
    with pytest.raises(PolicyError):
        rotation.rotate(fleet, KeyChange(**change), now_s=now_s)  # type: ignore[arg-type]
    assert sorted(fleet.directory.rglob("*")) == before


@pytest.mark.parametrize(
    "wrong", [{"generate": {"snapshot": 1}}, {"online": ("root",)}, {"thresholds": {"timestamp": 1}}]
)
def test_a_change_of_the_wrong_role_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(PolicyError):
        KeyChange(**wrong)  # type: ignore[arg-type]


def test_a_key_that_is_listed_cannot_come_again(fleet: Fleet, now_s: float) -> None:
    known = keys.load(fleet.offline / "targets-1.pem").public_key
    with pytest.raises(PolicyError):
        rotation.rotate(fleet, KeyChange(public={"root": [known]}), now_s=now_s)


def test_one_rotation_at_a_time(fleet: Fleet, now_s: float) -> None:
    rotation.rotate(fleet, KeyChange(generate={"root": 1}), now_s=now_s)
    with pytest.raises(PolicyError) as caught:
        rotation.rotate(fleet, KeyChange(), now_s=now_s)
    assert caught.value.code == "conflict"


def test_a_renewal_that_was_cut_short_can_be_made_again(fleet: Fleet, now_s: float) -> None:
    rotation.rotate(fleet, KeyChange(), now_s=now_s)
    rotation.rotate(fleet, KeyChange(), now_s=now_s + 1)
    waiting = (fleet.draft / "root.json").read_bytes()
    signing.sign(fleet, offline(fleet, "root-1"), now_s=now_s)
    with pytest.raises(PolicyError):
        rotation.rotate(fleet, KeyChange(), now_s=now_s)
    signing.sign(fleet, offline(fleet, "root-2"), now_s=now_s)
    (fleet.draft / "root.json").write_bytes(waiting)
    rotation.rotate(fleet, KeyChange(), now_s=now_s)
    assert signing.sign(fleet, offline(fleet, "root-1", "root-2"), now_s=now_s)[0].version == 3


def test_names_are_never_used_twice(fleet: Fleet, now_s: float) -> None:
    names = []
    for _ in range(2):
        newest = names[-1] if names else "targets-3"
        change = KeyChange(remove=(newest,), generate={"targets": 1})
        names += [path.stem for path in rotation.rotate(fleet, change, now_s=now_s)]
        signing.sign(fleet, offline(fleet, "root-1", "root-2"), now_s=now_s)
    assert names == ["targets-4", "targets-5"]


@pytest.mark.parametrize("damage", ["missing", "swapped", "cut", "bit"])
def test_a_damaged_chain_is_never_used(fleet: Fleet, now_s: float, damage: str) -> None:
    for _ in range(2):
        rotation.rotate(fleet, KeyChange(), now_s=now_s)
        signing.sign(fleet, offline(fleet, "root-1", "root-2"), now_s=now_s)
    first, second = fleet.metadata / "1.root.json", fleet.metadata / "2.root.json"
    if damage == "missing":
        second.unlink()
    elif damage == "swapped":
        second.write_bytes(first.read_bytes())
    elif damage == "cut":
        second.write_bytes(second.read_bytes()[:-20])
    else:
        second.write_bytes(second.read_bytes().replace(b'"threshold":2', b'"threshold":1', 1))
    with pytest.raises(ProtocolError):
        fleet.roots()
