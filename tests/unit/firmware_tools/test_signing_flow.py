"""k of n: signatures accumulate over machines, and only the threshold publishes."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware_tools import catalogue, ceremony, draft, signing
from firmware_tools.fleet import Fleet
from fleet_protocol.errors import FleetError, PolicyError

Make = Callable[..., Path]
TARGETS = ("targets-1", "targets-2", "targets-3")


def files(fleet: Fleet, names: tuple[str, ...]) -> list[Path]:
    return [fleet.offline / f"{name}.pem" for name in names]


@pytest.mark.parametrize("order", list(itertools.permutations(TARGETS, 2)))
def test_any_two_of_three_suffice_and_one_does_not(
    fleet: Fleet, make_artifact: Make, now_s: float, order: tuple[str, str]
) -> None:
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    (first,) = signing.sign(fleet, files(fleet, order[:1]), now_s=now_s)
    assert first.published is None
    assert first.tallies[0].signed == order[:1]
    assert set(first.tallies[0].missing) == set(TARGETS) - {order[0]}
    (second,) = signing.sign(fleet, files(fleet, order[1:]), now_s=now_s)
    assert second.published == fleet.metadata / "2.targets.json"
    assert fleet.targets() is not None
    assert draft.load(fleet, "targets") is None


@pytest.mark.parametrize(("threshold", "keys"), [(1, 1), (1, 2), (2, 2), (3, 5)])
def test_every_threshold(tmp_path: Path, make_artifact: Make, now_s: float, threshold: int, keys: int) -> None:
    place = ceremony.init(tmp_path / "f", fleet="acme", now_s=now_s, threshold=threshold, keys=keys)
    catalogue.add(place, make_artifact(), now_s=now_s)
    for number in range(1, threshold + 1):
        assert draft.load(place, "targets") is not None
        (result,) = signing.sign(place, files(place, (f"targets-{number}",)), now_s=now_s)
        assert (result.published is not None) == (number == threshold)


def test_the_offline_keys_need_not_be_there(fleet: Fleet, make_artifact: Make, tmp_path: Path, now_s: float) -> None:
    """Each holder has a copy of the directory without any key, and their own key elsewhere."""
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    home = tmp_path / "home"
    shutil.move(fleet.offline, home)
    shutil.rmtree(fleet.online)
    copies = []
    for number in (1, 3):
        copy = Fleet(tmp_path / f"copy-{number}")
        shutil.copytree(fleet.directory, copy.directory)
        signing.sign(copy, [home / f"targets-{number}.pem"], now_s=now_s)
        copies.append(copy)
    (one,) = signing.merge(fleet, copies[0].draft / "targets.json")
    assert one.published is None
    (two,) = signing.merge(fleet, copies[1].draft / "targets.json")
    assert two.published == fleet.metadata / "2.targets.json"


def test_signatures_of_another_document_are_not_taken(fleet: Fleet, make_artifact: Make, now_s: float) -> None:
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    other = fleet.directory / "other.json"
    shutil.copy(fleet.draft / "targets.json", other)
    catalogue.renew(fleet, now_s=now_s + 1)
    with pytest.raises(PolicyError) as caught:
        signing.merge(fleet, other)
    assert caught.value.code == "conflict"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"signed": 1}', b'{"signed": {"_type": "timestamp"}}'])
def test_a_file_that_is_no_draft_is_not_merged(fleet: Fleet, now_s: float, content: bytes) -> None:
    catalogue.renew(fleet, now_s=now_s)
    other = fleet.directory / "other.json"
    other.write_bytes(content)
    with pytest.raises(FleetError):
        signing.merge(fleet, other)


def test_the_signer_may_say_no(fleet: Fleet, make_artifact: Make, now_s: float) -> None:
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    before = (fleet.draft / "targets.json").read_bytes()
    with pytest.raises(PolicyError) as caught:
        signing.sign(fleet, files(fleet, TARGETS), now_s=now_s, confirm=lambda _: False)
    assert caught.value.code == "wrong-state"
    assert (fleet.draft / "targets.json").read_bytes() == before


def test_nothing_to_sign_is_said(fleet: Fleet, now_s: float) -> None:
    with pytest.raises(PolicyError) as caught:
        signing.sign(fleet, files(fleet, ("targets-1",)), now_s=now_s)
    assert caught.value.code == "wrong-state"


def test_a_crash_between_publishing_and_tidying_is_repaired(fleet: Fleet, make_artifact: Make, now_s: float) -> None:
    """The metadata is in its place, the draft still lies there: the next edit starts from what is signed."""
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    signing.sign(fleet, files(fleet, TARGETS[:1]), now_s=now_s)
    waiting = (fleet.draft / "targets.json").read_bytes()
    signing.sign(fleet, files(fleet, TARGETS[1:2]), now_s=now_s)
    (fleet.draft / "targets.json").write_bytes(waiting)
    with pytest.raises(PolicyError) as caught:
        signing.sign(fleet, files(fleet, TARGETS[1:2]), now_s=now_s)
    assert caught.value.code == "conflict"
    catalogue.set_floor(fleet, "my-service", 2, now_s=now_s)
    assert signing.sign(fleet, files(fleet, TARGETS[:2]), now_s=now_s)[0].published == fleet.metadata / "3.targets.json"


def test_an_expired_draft_is_not_signed(fleet: Fleet, make_artifact: Make, now_s: float) -> None:
    catalogue.add(fleet, make_artifact(), now_s=now_s)
    with pytest.raises(PolicyError) as caught:
        signing.sign(fleet, files(fleet, TARGETS), now_s=now_s + 91 * 86_400)
    assert "expired" in caught.value.detail
