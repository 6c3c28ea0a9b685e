"""Attacks B6 to B8 and B12 to B14: archives that would get out, grow, or bring what was not signed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from tests.fakes.artifacts import END, Artifact, header, hostile, member, packed, pax
from tests.fakes.attack_scene import RUN, AttackScene, altered, attack_scene
from tests.fakes.install_shell import deployment


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[AttackScene]:
    with attack_scene(tmp_path) as found:
        yield found


START = member("run", RUN, mode=0o755)


@pytest.mark.parametrize(
    "tail",
    [
        member("../outside/file", b"x"),
        member("../../../outside/file", b"x"),
        member("/etc/fairlead", b"x"),
        pax([("path", "../" * 20 + "etc/fairlead")]) + member("short", b"x"),
        member("..", kind=b"5", mode=0o755),
        member("a\nb", b"x"),
        member("RUN", b"x"),
        member("run", b"again"),
        member("run/below", b"x"),
        member("no/parent", b"x"),
        pax([("path", "x\u202etxt.exe")]) + member("short", b"x"),
        pax([("path", "n\u0303")]) + member("short", b"x"),
    ],
    ids=range(12),
)
def test_b6_paths_and_names(scene: AttackScene, tail: bytes) -> None:
    scene.rejects("archive", scene.target(2, hostile(START + tail + END)))


@pytest.mark.parametrize(
    "tail",
    [
        member("link", kind=b"2", linkname=b"../../../outside") + member("link/file", b"x"),
        member("link", kind=b"2", linkname=b"/etc/passwd"),
        member("link", kind=b"1", linkname=b"run"),
        member("device", kind=b"3"),
        member("block", kind=b"4"),
        member("fifo", kind=b"6"),
        member("sparse", b"x", kind=b"S"),
        pax([("GNU.sparse.size", "1000")]) + member("sparse", b"x"),
        pax([("linkpath", "/etc/passwd")]) + member("link", b"x"),
        member("setuid", b"x", mode=0o4755),
    ],
    ids=range(10),
)
def test_b7_links_devices_and_special_modes(scene: AttackScene, tail: bytes) -> None:
    scene.rejects("archive", scene.target(2, hostile(START + tail + END)))


def bomb(size: int) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    data = packer.compress(START + header("bomb", size))
    for _ in range(size // 2**20):
        data += packer.compress(bytes(2**20))
    return data + packer.compress(END) + packer.flush()


def test_b8_bombs(scene: AttackScene) -> None:
    """512 MiB in a few kilobytes: more than is signed is not unpacked, what is signed must fit the disk."""
    data = bomb(2**29)
    assert len(data) < 100_000
    scene.rejects("archive", scene.target(2, Artifact(data, 2**20, 10)))


def test_b8_more_than_the_disk_holds(scene: AttackScene) -> None:
    target = altered(scene.target(2), unpacked_size=2**44)
    scene.rejects("no-space", target, attack=False)


def test_b8_too_many_members(scene: AttackScene) -> None:
    many = b"".join(member(f"d{number}", kind=b"5", mode=0o755) for number in range(5_000))
    scene.rejects("archive", scene.target(2, hostile(START + many + END, files=50)))


def test_b12_one_part_that_never_comes(scene: AttackScene) -> None:
    """The second artifact is not to be had: nothing of the first becomes active, and nothing is spent."""
    second = packed({"extra": b"x"})
    targets = (
        scene.target(2),
        replace(scene.target(9, second, urls=[scene.server.url("/none")], path="app/2/extra"), kind="files"),
    )
    release = scene.release(2, *targets)
    scene.shell.publish(deployment("d-2", release))
    scene.shell.carry_on()
    assert scene.shell.record.stage == "downloading"
    assert scene.device.current() == "a"
    assert scene.now() == scene.before
    scene.shell.publish(deployment("d-2", release, "held"))
    scene.unharmed()


def test_b13_what_is_run_is_in_the_signed_archive(scene: AttackScene) -> None:
    """A program that somebody put into the spare slot beforehand is not the release's."""
    spare = scene.device.slot("b")
    spare.mkdir()
    (spare / "evil").write_bytes(b"#!/bin/sh\ntouch ../../../../../outside/ran\n")
    (spare / "evil").chmod(0o755)
    target = scene.target(2)
    target = replace(target, install=replace(target.install, exec=("evil",)))
    scene.rejects("start", target, attack=False)


@pytest.mark.parametrize("item", ["; touch x", "$(touch x)", "`touch x`", "a b", "--option", "*", "|", "\u00fc"])
def test_b14_arguments_are_not_for_a_shell(scene: AttackScene, item: str) -> None:
    code = b'#!/bin/sh\nprintf "%s|" "$#" "$@"\necho\nexec sleep 1000\n'
    artifact = packed({"run": code}, {"run": 0o755})
    target = scene.target(2, artifact)
    target = replace(target, install=replace(target.install, exec=("run", item)))
    scene.install(scene.release(2, target))
    assert scene.shell.outcomes[-1] == ("d-2", "committed", None)
    said = scene.device.supervisor.logs("app", 1)
    assert said in ((f"1|{item}|",), ())
    assert not (scene.device.slot("b") / "x").exists()
    assert list(scene.outside.iterdir()) == []
