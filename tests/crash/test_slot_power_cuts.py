"""A power cut at every call of a whole installation: the old or the new release is active, whole, and it goes on.

This is invariant D16, for slots.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.core.plan import PlannedRelease
from device_agent.installers.slots import Slots
from device_agent.installers.tree import tree_digest
from tests.fakes.artifacts import packed, planned_release, planned_target, put_in_cache
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.power_cuts import Recording, cuts, disk_of

ARTIFACTS = {version: packed({"version": b"%d" % version, "etc/conf": b"x" * 9}) for version in (1, 2)}


def _release(version: int) -> PlannedRelease:
    found: PlannedRelease = planned_release(
        planned_target(ARTIFACTS[version], kind="files"), version=f"{version}", counter=version
    )
    return found


@pytest.fixture
def device(tmp_path: Path) -> Iterator[DeviceUnderTest]:
    (tmp_path / "first").mkdir()
    with device_under_test(tmp_path / "first") as found:
        put_in_cache(found.state_dir, *ARTIFACTS.values())
        yield found


def _at(place: Path, scratch: Path) -> Any:
    """The device whose disk the power cut left at `place`."""
    scratch.mkdir(exist_ok=True)
    found = DeviceUnderTest(scratch, _settings(place))
    put_in_cache(found.state_dir, *ARTIFACTS.values())
    return found


def _settings(place: Path) -> Any:
    from device_agent.settings import AgentSettings

    return AgentSettings(device="node-1", fleet="acme", device_class="x86_64", state_dir=place)


def test_every_power_cut_of_an_update_leaves_the_old_or_the_new_release(
    device: DeviceUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = _release(1), _release(2)
    before = device.install(old, "a", None)
    device.run("commit", release=old, slot="a")
    put_in_cache(device.state_dir, *ARTIFACTS.values())
    recording, disk = Recording(device.state_dir), disk_of(device.state_dir)
    with monkeypatch.context() as patch:
        recording.start(patch)
        after = device.run("stage", release=new, slot="b", active="a")["tree"]
        staged = len(recording.calls)
        device.run("activate", release=new, slot="b", previous="a", before=old, tree=after)
    active = set()
    for made, place in cuts(recording, disk):
        slots = Slots(place, "app")
        found = slots.active()
        assert found in ("a", "b"), f"after call {made}"
        assert tree_digest(slots.path("a")) == before, f"after call {made}: the active slot was written"
        if found == "b":
            assert made >= staged
            assert tree_digest(slots.path("b")) == after, f"after call {made}: switched to what is not whole"
        active.add(found)
        again = _at(place, tmp_path / "again")
        if found == "a":
            assert again.run("stage", release=new, slot="b", active="a")["tree"] == after
        again.run("activate", release=new, slot="b", previous="a", before=old, tree=after)
        assert slots.active() == "b"
    assert active == {"a", "b"}


def test_every_power_cut_of_a_rollback_leaves_one_whole_release(
    device: DeviceUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = _release(1), _release(2)
    before = device.install(old, "a", None)
    device.run("commit", release=old, slot="a")
    put_in_cache(device.state_dir, *ARTIFACTS.values())
    after = device.install(new, "b", "a")
    recording, disk = Recording(device.state_dir), disk_of(device.state_dir)
    args = {"package": "app", "slot": "b", "previous": "a", "release": old, "tree": before}
    with monkeypatch.context() as patch:
        recording.start(patch)
        device.run("revert", **args)
        device.run("discard", package="app", slot="b")
    for made, place in cuts(recording, disk):
        slots = Slots(place, "app")
        found = slots.active()
        assert found in ("a", "b"), f"after call {made}"
        assert tree_digest(slots.path(found)) == (before if found == "a" else after)
        again = _at(place, tmp_path / "again")
        again.run("revert", **args)
        again.run("discard", package="app", slot="b")
        assert (slots.active(), slots.path("b").exists()) == ("a", False)
