"""Attacks B9, B11 and B16, and full disks: what may happen to a release on the device itself."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.core.plan import PlannedTarget
from device_agent.installers.tree_writer import TreeWriter
from device_agent.operations import Operation
from fleet_protocol.install import HealthCheck
from tests.fakes.artifacts import packed, read_tree
from tests.fakes.attack_scene import GOOD, AttackScene, attack_scene
from tests.fakes.install_shell import in_this_process
from tests.fakes.waiting import until


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[AttackScene]:
    with attack_scene(tmp_path) as found:
        yield found


def before(scene: AttackScene, op: str, change) -> None:  # type: ignore[no-untyped-def]
    """Let `change` happen just before the first `op`."""
    carry_out, done = in_this_process(scene.device), []

    def run(asked: Operation) -> dict[str, object]:
        if asked.op == op and not done:
            done.append(True)
            change()
        return carry_out(asked)

    scene.shell.run_op = run


@pytest.mark.parametrize("offset", [0, 5, 50, -1])
def test_b9_the_cached_artifact_changes_before_it_is_unpacked(scene: AttackScene, offset: int) -> None:
    def change() -> None:
        path = scene.device.state_dir / "cache" / GOOD[2].sha256
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        path.write_bytes(data)

    before(scene, "stage", change)
    scene.rejects("digest")


def test_b9_the_cached_artifact_becomes_a_link(scene: AttackScene) -> None:
    def change() -> None:
        path = scene.device.state_dir / "cache" / GOOD[2].sha256
        path.unlink()
        path.symlink_to("/etc/passwd")

    before(scene, "stage", change)
    scene.rejects("io", attack=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda slot: (slot / "run").write_bytes(b"#!/bin/sh\ntouch /tmp/x\n"),
        lambda slot: (slot / "run").chmod(0o4755),
        lambda slot: (slot / "extra").write_bytes(b""),
        lambda slot: (slot / "version").unlink(),
        lambda slot: ((slot / "version").unlink(), (slot / "version").symlink_to("/etc/passwd")),
        lambda slot: (slot.rename(slot.with_name("c")), slot.symlink_to("c")),
    ],
    ids=range(6),
)
def test_b9_the_slot_changes_before_the_switch(scene: AttackScene, change) -> None:  # type: ignore[no-untyped-def]
    slot = scene.device.slot("b")
    before(scene, "activate", lambda: change(slot))
    scene.install(scene.release(2))
    assert scene.shell.outcomes[-1] == ("d-2", "rolled_back", "altered")
    scene.unharmed()


@pytest.mark.parametrize(
    "change",
    [
        lambda slot: (slot / "version").write_bytes(b"X"),
        lambda slot: (slot / "extra").mkdir(),
        lambda slot: (slot / "run").unlink(),
    ],
    ids=range(3),
)
def test_b11_the_previous_slot_changes_before_a_rollback(scene: AttackScene, change) -> None:  # type: ignore[no-untyped-def]
    """Stays with what runs, and says so: something unverified is never switched to."""
    before(scene, "revert", lambda: change(scene.device.slot("a")))
    sick = HealthCheck(kind="exec", target="version", interval_s=1, timeout_s=5, failures=1)
    target = scene.target(2)
    target = replace(target, install=replace(target.install, check=sick))
    scene.install(scene.release(2, target))
    assert scene.shell.outcomes[-1] == ("d-2", "failed", "altered")
    assert scene.device.current() == "b"
    status = scene.device.supervisor.status("app")
    assert (status.running, status.version) == (True, "2.0")
    scene.install(scene.release(3))
    assert scene.shell.outcomes[-1] == ("d-3", "committed", None)


@pytest.mark.parametrize(
    ("code", "found"),
    [(b"#!/bin/sh\nexit 0\n", "crashed"), (b"#!/no/such/interpreter\n", "start"), (b"", "start")],
    ids=["ends", "no interpreter", "empty"],
)
def test_b16_a_release_that_does_not_run(scene: AttackScene, code: bytes, found: str) -> None:
    def ended() -> None:
        if found == "crashed":
            until(lambda: scene.device.supervisor.status("app").ended)

    before(scene, "check", ended)
    scene.install(scene.release(2, scene.target(2, packed({"run": code}, {"run": 0o755}))))
    assert scene.shell.outcomes[-1] == ("d-2", "rolled_back", found)
    assert scene.device.current() == "a"
    assert scene.device.supervisor.status("app").version == "1.0"
    scene.install(scene.release(3))
    assert scene.shell.outcomes[-1] == ("d-3", "committed", None)


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own below `path`; only root may mount one."""
    path.mkdir()
    options = f"size={megabytes}m"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[AttackScene]:
    """A scene on a disk of 6 MiB."""
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    with small_disk(tmp_path / "disk", 6), attack_scene(tmp_path / "disk") as found:
        yield found


def noise(size: int) -> bytes:
    return os.urandom(size)


def large(scene: AttackScene, size: int, *, honest: bool = True):  # type: ignore[no-untyped-def]
    artifact = packed({"run": b"#!/bin/sh\nexec sleep 1000\n", "noise": noise(size)}, {"run": 0o755})
    target = scene.target(2, artifact)
    return target if honest else replace(target, unpacked_size=1)


@pytest.mark.parametrize("size", [7_000_000, 5_500_000, 3_000_000])
def test_a_disk_that_is_too_small_for_download_or_unpacking(crowded: AttackScene, size: int) -> None:
    """The download does not fit; the last block of it does not; the unpacked files beside it do not."""
    crowded.rejects("no-space", large(crowded, size), attack=False)


def small_files(scene: AttackScene, number: int) -> PlannedTarget:
    files = {f"file{place}": b"x" for place in range(number)} | {"run": b"#!/bin/sh\nexec sleep 1000\n"}
    return scene.target(2, packed(files, {"run": 0o755}))


def test_a_disk_that_is_too_small_for_many_small_files(crowded: AttackScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no more than 2 kB, and would take all of the disk before the last of them did not fit."""
    monkeypatch.setattr(TreeWriter, "file", lambda *_: pytest.fail("the disk is being filled"))
    crowded.install(crowded.release(2, small_files(crowded, 2_000)))
    assert crowded.shell.outcomes[-1][::2] == ("d-2", "no-space")
    monkeypatch.undo()
    crowded.unharmed()


def test_many_small_files_are_gone_on_with_where_they_fitted(crowded: AttackScene) -> None:
    """What a worker wrote before it was killed is not counted once more."""
    release = crowded.release(2, small_files(crowded, 800))
    args = {"release": release, "slot": "b", "active": "a", "irreversible": False}
    before(crowded, "stage", lambda: crowded.device.run("stage", **args))
    crowded.install(release)
    assert crowded.shell.outcomes[-1] == ("d-2", "committed", None)


def test_a_disk_that_fills_up_while_unpacking(crowded: AttackScene) -> None:
    """Somebody else takes the space between the check and the write."""
    hog = crowded.outside.parent / "hog"

    def fill() -> None:
        disk = os.statvfs(hog.parent)
        hog.write_bytes(bytes(disk.f_bavail * disk.f_frsize - 900_000))

    target = large(crowded, 1_500_000)
    before(crowded, "stage", fill)
    seen = read_tree(crowded.device.slot("a"))
    crowded.install(crowded.release(2, target))
    assert crowded.shell.outcomes[-1][::2] == ("d-2", "no-space")
    assert read_tree(crowded.device.slot("a")) == seen
    hog.unlink()
    crowded.unharmed()


def test_a_disk_that_can_not_be_written(crowded: AttackScene) -> None:
    cache = crowded.device.state_dir / "cache"

    def mount() -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", cache], check=True)

    before(crowded, "fetch", mount)
    try:
        crowded.install(crowded.release(2))
    finally:
        subprocess.run(["umount", cache], check=True)
    assert crowded.shell.outcomes[-1][::2] == ("d-2", "read-only")
    crowded.unharmed()
