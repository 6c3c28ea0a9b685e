"""Releases of Debian packages on a real dpkg, in a root of their own: forward, back, refused, in the way of others."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.installers import dpkg, dpkg_lock, package
from firmware_tools.packing import ReleaseSpec, pack
from fleet_protocol.install import HealthCheck
from tests.fakes.artifacts import Artifact, planned_release, planned_target, put_in_cache
from tests.fakes.debian import NEEDS_DPKG, Deb, DebianRoot, artifact, make_deb, target_of
from tests.fakes.package_scene import PackageScene, app, package_scene

pytestmark = NEEDS_DPKG
FAIL = "echo last words; exit 3"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[PackageScene]:
    with package_scene(tmp_path) as found:
        yield found


def paragraph(root: DebianRoot) -> str:
    return root.dpkg("--status", "app")


def test_an_update_its_commit_and_its_recall(scene: PackageScene) -> None:
    """What a release brought leaves with it; the .debs of the release before are in its slot."""
    scene.activate(*scene.stage(app(1)))
    scene.commit()
    first = scene.root.tree()
    scene.activate(*scene.stage(app(2, depends="extra"), make_deb("extra", "1.0")))
    scene.commit()
    assert scene.root.packages() == {"app": "2.0", "extra": "1.0"}
    (release, tree), (left, _) = scene.installed
    scene.device.run("activate", release=release, slot="a", previous="b", before=left, tree=tree)
    assert scene.device.run("check", release=release, slot="a") == {"code": None, "detail": ""}
    scene.device.run("commit", release=release, slot="a")
    assert scene.root.packages() == {"app": "1.0"}
    assert scene.root.tree() == {**first, "etc/app2.conf": "644 x"}  # dpkg leaves what a version has no more
    assert scene.left_over() == []


def test_a_recall_that_fails_goes_back_to_what_it_left(scene: PackageScene) -> None:
    scene.activate(*scene.stage(app(1)))
    scene.commit()
    scene.activate(*scene.stage(app(2, depends="extra"), make_deb("extra", "1.0", conffiles={"etc/extra.conf": "x"})))
    scene.commit()
    second = scene.root.tree()
    (release, tree), (left, left_tree) = scene.installed
    scene.device.run("activate", release=release, slot="a", previous="b", before=left, tree=tree)
    scene.device.run("revert", package="app", slot="a", previous="b", release=left, tree=left_tree)
    assert scene.root.packages() == {"app": "2.0", "extra": "1.0"}
    assert scene.root.tree() == second


def test_a_package_of_the_owner_is_never_taken_out(scene: PackageScene) -> None:
    scene.root.put(make_deb("extra", "0.9"))
    scene.activate(*scene.stage(app(1), make_deb("extra", "1.0")))
    scene.commit()
    scene.activate(*scene.stage(app(2)))
    scene.commit()
    assert scene.root.packages() == {"app": "2.0", "extra": "1.0"}


def test_what_others_need_by_now_is_not_taken_out(scene: PackageScene) -> None:
    scene.activate(*scene.stage(app(1), make_deb("extra", "1.0")))
    scene.commit()
    scene.root.put(make_deb("owners", "1", depends="extra"))
    scene.activate(*scene.stage(app(2)))
    scene.commit()
    assert scene.root.packages() == {"app": "2.0", "extra": "1.0", "owners": "1"}
    scene.root.dpkg("--purge", "owners")
    scene.activate(*scene.stage(app(3)))
    assert scene.root.packages() == {"app": "3.0"}


def test_a_new_package_that_others_need_by_now_survives_the_way_back(scene: PackageScene) -> None:
    scene.activate(*scene.stage(app(1)))
    scene.commit()
    scene.activate(*scene.stage(app(2), make_deb("extra", "1.0")))
    scene.root.put(make_deb("owners", "1", depends="extra"))
    scene.revert()
    assert scene.root.packages() == {"app": "1.0", "extra": "1.0", "owners": "1"}
    assert scene.left_over() == []


BEFORE: dict[str, tuple[Deb, ...]] = {}
if NEEDS_DPKG.args[0] is False:
    BEFORE = {"nothing": (), "the package": (app(1),), "one with a bad prerm": (app(1, scripts={"prerm": FAIL}),)}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
@pytest.mark.parametrize("script", ["preinst", "postinst", "prerm", "postrm", "all"])
def test_a_script_that_fails_leaves_the_device_as_it_was(
    scene: PackageScene, before: tuple[Deb, ...], script: str
) -> None:
    """Wherever the new release fails, and however it fights against leaving."""
    scene.root.put(*before)
    was = scene.root.tree(), scene.root.packages()
    scripts = dict.fromkeys(("preinst", "postinst", "prerm", "postrm") if script == "all" else (script,), FAIL)
    wanted, tree = scene.stage(app(2, scripts=scripts))
    assert (scene.root.tree(), scene.root.packages()) == was
    try:
        scene.activate(wanted, tree)
    except Exception as error:  # noqa: BLE001 - which one is looked at
        assert getattr(error, "code", None) == "start", error
        assert "last words" in str(error)
    scene.revert()
    assert (scene.root.tree(), scene.root.packages()) == was
    assert scene.left_over() == []


def test_a_script_that_never_ends_is_left_behind(scene: PackageScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpkg, "CHANGE_S", 20.0)
    scene.root.put(app(1))
    was = scene.root.tree(), scene.root.packages()
    hang = 'echo "$$" >"$DPKG_ROOT/pid"; exec sleep 1000'
    scene.activate(*scene.stage(app(2, scripts={"prerm": hang})))
    try:
        scene.revert()
    finally:
        os.kill(int((scene.root.path / "pid").read_text()), signal.SIGKILL)  # as the resident ends a worker's group
        (scene.root.path / "pid").unlink()
    assert (scene.root.tree(), scene.root.packages()) == was


def edited(root: DebianRoot) -> None:
    (root.path / "etc/app.conf").write_text("the owner's")


def removed(root: DebianRoot) -> None:
    (root.path / "etc/app.conf").unlink()


def linked(root: DebianRoot) -> None:
    (root.path / "etc/app.conf").rename(root.path / "etc/real.conf")
    (root.path / "etc/app.conf").symlink_to("/etc/real.conf")


def refused_once(root: DebianRoot) -> None:
    """The owner still has what dpkg put beside the file at another update."""
    edited(root)
    (root.path / "etc/app.conf.dpkg-dist").write_text("of another time")


@pytest.mark.parametrize("change", [edited, removed, linked, refused_once])
def test_the_owners_configuration_stays_and_comes_back(
    scene: PackageScene, change: Callable[[DebianRoot], None]
) -> None:
    scene.root.put(app(1))
    change(scene.root)
    was = scene.root.tree(), scene.root.packages()
    scene.activate(*scene.stage(app(2)))
    if change is not linked:
        assert scene.root.tree().get("etc/app.conf") == was[0].get("etc/app.conf")
    scene.revert()
    assert (scene.root.tree(), scene.root.packages()) == was
    assert scene.left_over() == []


def test_a_way_back_of_installed_files_does_not_hide_the_owners_changes(scene: PackageScene) -> None:
    """There is no .deb of version 1 anywhere; after the way back version 3 must still know what the owner changed."""
    scene.root.put(app(1))
    edited(scene.root)
    scene.activate(*scene.stage(app(2)))
    scene.revert()
    scene.activate(*scene.stage(app(3)))
    assert scene.root.tree()["etc/app.conf"] == "644 the owner's"


def test_a_held_package_is_updated_by_name_only_and_stays_held(scene: PackageScene) -> None:
    scene.root.put(app(1))
    scene.root.dpkg("--set-selections", told="app hold\n")
    scene.activate(*scene.stage(app(2)))
    assert scene.root.packages() == {"app": "2.0 hold"}
    scene.revert()
    assert scene.root.packages() == {"app": "1.0 hold"}


def test_configuration_of_a_removed_package_is_kept(scene: PackageScene) -> None:
    scene.root.put(app(1))
    edited(scene.root)
    scene.root.dpkg("--remove", "app")
    was = scene.root.tree()
    scene.activate(*scene.stage(app(2)))
    assert scene.root.packages() == {"app": "2.0"}
    scene.revert()
    assert scene.root.tree() == was
    assert scene.root.packages()["app"].endswith("config-files deinstall")


def test_packages_that_depend_before_they_are_unpacked_come_in_order(scene: PackageScene) -> None:
    needs_lib = {"preinst": 'test -e "$DPKG_ROOT/usr/lib/lib/ready"'}
    lib = make_deb("lib", "1", depends="libx", scripts={"postinst": 'touch "$DPKG_ROOT/usr/lib/lib/ready"'})
    scene.activate(*scene.stage(app(1, pre_depends="lib (>= 1)", scripts=needs_lib), lib, make_deb("libx", "2")))
    assert scene.root.packages() == {"app": "1.0", "lib": "1", "libx": "2"}


def test_packages_that_break_each_others_old_versions_go_together(scene: PackageScene) -> None:
    old = make_deb("one", "1"), make_deb("two", "1", depends="one (= 1)")
    scene.root.put(*old)
    scene.activate(*scene.stage(make_deb("one", "2", breaks="two (<< 2)"), make_deb("two", "2", depends="one (= 2)")))
    assert scene.root.packages() == {"one": "2", "two": "2"}
    scene.revert()
    assert scene.root.packages() == {"one": "1", "two": "1"}


OTHER: dict[str, tuple[tuple[Deb, ...], Deb, str]] = {}
if NEEDS_DPKG.args[0] is False:
    OTHER = {
        "missing": ((), app(2, depends="nothere (>= 2) | norhere"), "app 2.0 needs nothere (>= 2) | norhere"),
        "too old": ((make_deb("lib", "1.9"),), app(2, depends="lib (>= 2)"), "app 2.0 needs lib (>= 2)"),
        "would remove": (
            (make_deb("other", "1"),),
            app(2, conflicts="other", replaces="other", provides="other"),
            "app 2.0 does not go with other 1",
        ),
        "would break": ((make_deb("other", "1"),), app(2, breaks="other (<< 2)"), "app 2.0 does not go with other 1"),
        "others need the old": (
            (app(1), make_deb("other", "1", depends="app (= 1.0)")),
            app(2),
            "other 1, which stays, needs app (= 1.0)",
        ),
        "others refuse the new": (
            (app(1), make_deb("other", "1", conflicts="app (>= 2)")),
            app(2),
            "other 1 does not go with app 2.0",
        ),
    }


@pytest.mark.parametrize("case", OTHER.values(), ids=OTHER.keys())
def test_what_others_would_suffer_from_is_refused(scene: PackageScene, case: tuple[tuple[Deb, ...], Deb, str]) -> None:
    there, wanted, detail = case
    scene.root.put(*there)
    error = scene.refused(wanted)
    assert (error.code, error.detail) == ("dependencies", detail)
    assert not scene.device.slot("a").exists()


def test_other_architectures_are_refused(scene: PackageScene) -> None:
    error = scene.refused(make_deb("app", "1", architecture="m68k"))
    assert error.code == "unsupported"
    assert "m68k" in error.detail


def test_a_package_that_says_something_else_than_is_signed_is_refused(scene: PackageScene) -> None:
    signed = app(2)
    lying = Deb("app", "1.0", "all", signed.data)
    assert scene.refused(lying).code == "format"
    assert scene.refused(Deb("app", "2.0", "all", b"no package")).code == "format"


def test_a_system_without_dpkg_is_refused(scene: PackageScene) -> None:
    wanted = app(1)
    (scene.root.path / "var/lib/dpkg").rename(scene.root.path / "var/lib/elsewhere")
    with pytest.raises(Exception, match="unsupported"):
        scene.stage(wanted)


HOLD_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_manager(scene: PackageScene) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts another program that holds dpkg's lock until its standard input ends."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD_LOCK, str(scene.root.path / "var/lib/dpkg/lock-frontend")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        with process:
            assert process.stdin is not None
            process.stdin.close()


def test_another_package_manager_is_not_disturbed(
    scene: PackageScene, other_manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "LOCK_WAIT_S", 0.0)
    scene.root.put(app(1))
    wanted, tree = scene.stage(app(2))
    was = scene.root.tree(), scene.root.packages()
    other = other_manager()
    assert scene.refused(app(2)).code == "locked"
    wanted, tree = scene_after(scene, other, app(2))
    other = other_manager()
    error = scene.fails(wanted, tree)
    assert error.code == "locked"
    assert f"process {other.pid}" in error.detail
    scene.revert()
    assert (scene.root.tree(), scene.root.packages()) == was


def scene_after(scene: PackageScene, other: subprocess.Popen[str], wanted: Deb) -> Any:
    """What can be staged once the other program has ended."""
    assert other.stdin is not None
    other.stdin.close()
    other.wait()
    return scene.stage(wanted)


def test_the_lock_is_waited_for(scene: PackageScene, other_manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other program ends in the first pause."""
    wanted, tree = scene.stage(app(1))
    other = other_manager()

    def pause(_: float) -> None:
        other.stdin.close()
        other.wait()

    monkeypatch.setattr(dpkg_lock.time, "sleep", pause)
    scene.activate(wanted, tree)
    assert other.returncode == 0
    assert scene.root.packages() == {"app": "1.0"}


def test_what_the_owner_left_half_done_is_finished_and_not_judged(scene: PackageScene, tmp_path: Path) -> None:
    """An interrupted dpkg of somebody else's does not keep a release out, whether it can be finished or not."""
    once = 'test -e "$DPKG_ROOT/ready" || exit 1'
    debs = make_deb("later", "1", scripts={"postinst": once}), make_deb("never", "1", scripts={"postinst": "exit 1"})
    for deb in debs:
        (tmp_path / deb.file).write_bytes(deb.data)
        scene.root.dpkg("--install", str(tmp_path / deb.file), check=False)
    assert scene.root.packages() == {"later": "1 half-configured", "never": "1 half-configured"}
    (scene.root.path / "ready").touch()
    scene.activate(*scene.stage(app(1)))
    assert scene.root.packages() == {"app": "1.0", "later": "1", "never": "1 half-configured"}


def test_a_release_may_mend_what_is_broken(scene: PackageScene, tmp_path: Path) -> None:
    bad = app(1, scripts={"postinst": "exit 1"})
    (tmp_path / bad.file).write_bytes(bad.data)
    scene.root.dpkg("--install", str(tmp_path / bad.file), check=False)
    scene.activate(*scene.stage(app(2)))
    assert scene.root.packages() == {"app": "2.0"}
    scene.revert()
    assert scene.root.packages() == {"app": "1.0 half-configured"}


def test_the_way_back_out_of_the_owners_downloads(scene: PackageScene) -> None:
    """apt keeps what it downloaded; the scripts of the old version are then those of its own .deb."""
    old = app(1, scripts={"postinst": 'echo "$@" >> "$DPKG_ROOT/calls"'})
    scene.root.put(old)
    (scene.root.path / "var/cache/apt/archives" / old.file).write_bytes(old.data)
    scene.activate(*scene.stage(app(2)))
    for path in (scene.root.path / "var/cache/apt/archives").glob("*.deb"):
        path.unlink()
    scene.revert()
    assert scene.root.packages() == {"app": "1.0"}
    assert (scene.root.path / "calls").read_text().splitlines()[-1] == "configure 2.0"


def diverted(scene: PackageScene) -> None:
    """The installed files are then not the package's own."""
    command = ["dpkg-divert", f"--admindir={scene.root.path}/var/lib/dpkg", f"--instdir={scene.root.path}", "--local"]
    subprocess.run([*command, "--rename", "--add", "/usr/lib/app/version"], check=True, capture_output=True)


def test_without_a_way_back_only_who_accepts_that_gets_the_release(scene: PackageScene) -> None:
    scene.root.put(app(1))
    diverted(scene)
    error = scene.refused(app(2))
    assert error.code == "no-way-back"
    assert "app 1.0" in error.detail
    debs = app(2, depends="needed"), make_deb("needed", "1"), make_deb("extra", "1")
    scene.activate(*scene.stage(*debs, irreversible=True))
    assert scene.root.packages() == {"app": "2.0", "needed": "1", "extra": "1"}
    scene.revert()
    assert scene.root.packages() == {"app": "2.0", "needed": "1"}


def test_a_way_back_that_was_altered_is_not_taken(scene: PackageScene) -> None:
    """Attack B11: stays where it is."""
    scene.root.put(app(1))
    left, tree = scene.stage(app(2))
    scene.activate(left, tree)
    (deb,) = (scene.device.state_dir / "slots").rglob("back/*.deb")
    deb.write_bytes(deb.read_bytes() + b"x")
    back = {"package": "app", "slot": "a", "previous": None, "leaving": left, "release": None, "tree": None}
    found = scene.device.refused("revert", **back)
    assert found.code == "altered"
    assert scene.device.current() == "a"
    assert scene.root.packages() == {"app": "2.0"}


def test_a_package_that_is_not_as_it_should_be_is_not_well(scene: PackageScene) -> None:
    check = HealthCheck(kind="exec", target="bin/sick", interval_s=1, timeout_s=10, failures=1)
    wanted, tree = scene.stage(app(1), check=check, tree={"bin/sick": b"#!/bin/sh\nexit 1\n"})
    scene.activate(wanted, tree)
    assert scene.device.run("check", release=wanted, slot="a")["detail"].startswith("bin/sick ends with status 1")
    scene.root.dpkg("--remove", "app")
    found = scene.device.run("check", release=wanted, slot="a")
    assert found == {"code": "unhealthy", "detail": "app is config-files at 1.0, not at 1.0"}
    scene.root.dpkg("--purge", "app")
    assert scene.device.run("check", release=wanted, slot="a")["detail"] == "app is not there, not at 1.0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@pytest.mark.parametrize("room_kib", [300, 700])
def test_a_disk_that_fills_up_while_dpkg_works(scene: PackageScene, room_kib: int) -> None:
    """The package says that it is small, and is not."""
    scene.root.put(app(1))
    usr = scene.root.path / "usr"
    usr.rename(scene.root.path / "was")
    usr.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room_kib}k,mode=755", "tmpfs", str(usr)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{scene.root.path}/was/.", str(usr)], check=True)
        was = scene.root.tree(), scene.root.packages()
        big = {f"usr/lib/app/big{number}": "x" * 100_000 for number in range(10)}
        wanted, tree = scene.stage(make_deb("app", "2.0", files=big))
        assert scene.fails(wanted, tree).code == "no-space"
        scene.revert()
        assert (scene.root.tree(), scene.root.packages()) == was
    finally:
        subprocess.run(["umount", str(usr)], check=True)


def test_what_can_not_fit_is_refused_before(scene: PackageScene) -> None:
    assert scene.refused(app(1, installed_size=str(2**40))).code == "no-space"


def test_a_lock_file_of_nobody_is_no_lock(scene: PackageScene) -> None:
    """fcntl's locks are gone with their process; the file stays."""
    with (scene.root.path / "var/lib/dpkg/lock-frontend").open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
    scene.activate(*scene.stage(app(1)))
    assert scene.root.packages() == {"app": "1.0"}


def test_a_commit_that_was_lost_leads_no_way_back_too_far(scene: PackageScene) -> None:
    """What is kept belongs to one attempt: the next one, a recall too, begins with what is there then."""
    scene.root.put(app(1))
    scene.activate(*scene.stage(app(2)))
    scene.activate(*scene.stage(app(3)))
    scene.revert()
    assert scene.root.packages() == {"app": "2.0"}
    scene.activate(*scene.stage(app(3)))
    (release, tree), (left, left_tree) = scene.installed
    scene.device.run("activate", release=release, slot="a", previous="b", before=left, tree=tree)
    assert scene.root.packages() == {"app": "2.0"}
    scene.device.run("revert", package="app", slot="a", previous="b", release=left, tree=left_tree)
    assert scene.root.packages() == {"app": "3.0"}
    assert list((scene.device.state_dir / "backup").rglob("kept.json")) == []


def test_a_recall_that_could_not_begin_changes_nothing(
    scene: PackageScene, other_manager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit of the release that it leaves was lost: that is no reason to undo it."""
    monkeypatch.setattr(package, "LOCK_WAIT_S", 0.0)
    scene.activate(*scene.stage(app(1)))
    scene.commit()
    scene.activate(*scene.stage(app(2)))
    (release, tree), (left, left_tree) = scene.installed
    other_manager()
    recall = {"release": release, "slot": "a", "previous": "b", "before": left, "tree": tree}
    assert scene.device.refused("activate", **recall).code == "locked"
    scene.device.run("revert", package="app", slot="a", previous="b", release=left, tree=left_tree)
    assert scene.root.packages() == {"app": "2.0"}


def test_a_package_may_move_to_another_part(scene: PackageScene) -> None:
    first, second = make_deb("one", "1"), make_deb("two", "1")
    put_in_cache(scene.device.state_dir, artifact(first, second))
    together = planned_release(target_of(first, second, part="x"))
    apart = planned_release(target_of(second, part="w", path="app/2/w"), target_of(first, part="x"), version="2")
    tree = str(scene.device.run("stage", release=together, slot="a", active=None)["tree"])
    scene.device.run("activate", release=together, slot="a", previous=None, tree=tree)
    scene.device.run("commit", release=together, slot="a")
    put_in_cache(scene.device.state_dir, artifact(first), artifact(second))
    other = str(scene.device.run("stage", release=apart, slot="b", active="a")["tree"])
    scene.device.run("activate", release=apart, slot="b", previous="a", before=together, tree=other)
    assert scene.root.packages() == {"one": "1", "two": "1"}
    scene.device.run("revert", package="app", slot="b", previous="a", release=together, tree=tree)
    assert scene.root.packages() == {"one": "1", "two": "1"}


def test_a_part_that_a_release_has_no_more_takes_its_packages_along(scene: PackageScene) -> None:
    one, two = make_deb("one", "1"), make_deb("two", "1")
    put_in_cache(scene.device.state_dir, artifact(one), artifact(two))
    both = planned_release(target_of(one, part="x"), target_of(two, part="y", path="app/1/y"))
    less = planned_release(target_of(one, part="x"), version="2")
    tree = str(scene.device.run("stage", release=both, slot="a", active=None)["tree"])
    scene.device.run("activate", release=both, slot="a", previous=None, tree=tree)
    scene.device.run("commit", release=both, slot="a")
    put_in_cache(scene.device.state_dir, artifact(one))
    other = str(scene.device.run("stage", release=less, slot="b", active="a")["tree"])
    scene.device.run("activate", release=less, slot="b", previous="a", before=both, tree=other)
    assert scene.root.packages() == {"one": "1"}
    scene.device.run("revert", package="app", slot="b", previous="a", release=both, tree=tree)
    assert scene.root.packages() == {"one": "1", "two": "1"}


@pytest.mark.parametrize("raw", [False, True])
def test_what_pack_makes_is_what_a_device_installs(scene: PackageScene, tmp_path: Path, raw: bool) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for deb in (app(1),) if raw else (app(1, depends="extra"), make_deb("extra", "2")):
        (tree / deb.file).write_bytes(deb.data)
    spec = ReleaseSpec(package="app", version="1", counter=1, kind="package", classes=("x86_64",))
    out = tmp_path / "out"
    info = pack(tree / app(1).file if raw else tree, out, spec, level=1).custom
    packed = Artifact(out.read_bytes(), info.unpacked_size, info.unpacked_files, info.format)
    target = replace(planned_target(packed, kind="package"), install=info.install)
    wanted = planned_release(target)
    put_in_cache(scene.device.state_dir, packed)
    made = str(scene.device.run("stage", release=wanted, slot="a", active=None)["tree"])
    scene.device.run("activate", release=wanted, slot="a", previous=None, tree=made)
    assert scene.root.packages() == ({"app": "1.0"} if raw else {"app": "1.0", "extra": "2"})
    assert scene.device.run("check", release=wanted, slot="a")["code"] is None
    scene.device.run("commit", release=wanted, slot="a")
    scene.installed.append((wanted, made))
    scene.activate(*scene.stage(app(2)))
    assert scene.root.packages()["app"] == "2.0"
    scene.revert()
    assert scene.root.packages()["app"] == "1.0"
