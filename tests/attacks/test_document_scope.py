"""A16: documents of another fleet, group or device."""

from pathlib import Path

import pytest

from tests.fakes.trust_device import TrustDevice, enrolled, still_obeys
from tests.fakes.trust_fleet import Fleet

NAMES = ["other", "acme2", "line", "line-10", "node", "node-10", "x" * 64]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("member", ["fleet", "group"])
def test_a_manifest_for_somebody_else(tmp_path: Path, member: str, name: str) -> None:
    fleet, device = enrolled(tmp_path)
    data = fleet.manifest(fleet.deployment(), **{member: name})
    assert device.refused(lambda: device.offer_manifest(data)) == "scope"
    still_obeys(fleet, device)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("member", ["fleet", "device"])
def test_an_assignment_or_a_command_for_somebody_else(tmp_path: Path, member: str, name: str) -> None:
    fleet, device = enrolled(tmp_path)
    assignment, command = fleet.assignment(**{member: name}), fleet.command(**{member: name})
    assert device.refused(lambda: device.offer_assignment(assignment)) == "scope"
    assert device.refused(lambda: device.offer_command(command)) == "scope"
    still_obeys(fleet, device)


def test_a_manifest_of_a_group_that_the_device_is_not_assigned_to(tmp_path: Path) -> None:
    """Topic and document agree, and yet it is not this device's group."""
    fleet, device = enrolled(tmp_path)
    data = fleet.manifest(fleet.deployment(), group="line-2")
    assert device.refused(lambda: device.offer_manifest(data, "line-2")) == "scope"
    still_obeys(fleet, device)


def test_each_group_has_floors_of_its_own_which_outlive_a_move(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    here = fleet.manifest(fleet.deployment(), sequence=7)
    device.offer_manifest(here)
    there = fleet.manifest(fleet.deployment(), group="line-2", sequence=1)
    device.offer_assignment(fleet.assignment(group="line-2"))
    assert device.offer_manifest(there, "line-2")["sequence"] == 1
    assert device.refused(lambda: device.offer_manifest(here)) == "scope"
    device.offer_assignment(fleet.assignment())
    replay = fleet.manifest(fleet.deployment(), sequence=6)
    assert device.refused(lambda: device.offer_manifest(replay)) == "replay"
    fleet.sequence = 7
    still_obeys(fleet, device)


def test_a_manifest_of_a_fleet_with_the_same_name_and_other_keys(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    twin = Fleet()
    twin.add_release()
    twin.publish()
    data = twin.manifest(twin.deployment(), sequence=9)
    assert device.refused(lambda: device.offer_manifest(data)) == "signature"
    device.documents = twin.retained()
    assert device.refused(device.refresh) in ("signature", "root")
    device.documents = None
    still_obeys(fleet, device)


def test_a_device_of_another_fleet_is_not_taken_over(tmp_path: Path) -> None:
    """The very same root names the fleet; a device that was told another name does not use it."""
    fleet, device = enrolled(tmp_path)
    other = TrustDevice(fleet, tmp_path / "other")
    other.settings = type(other.settings)(
        device="node-1", fleet="other", device_class="x86_64", state_dir=tmp_path / "other", topic_prefix="fleet/v1"
    )
    data = fleet.manifest(fleet.deployment())
    assert other.refused(lambda: other.offer_manifest(data)) == "scope"
    still_obeys(fleet, device)
