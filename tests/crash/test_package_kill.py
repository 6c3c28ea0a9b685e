"""kill -9 while Debian packages are installed: before and after every step of ours, inside dpkg, inside its scripts.

Each time the device ends in exactly the old or the new release, with nothing left over, and the next release still
installs. dpkg is the real one, in a root of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from device_agent.core.plan import PlannedRelease
from device_agent.installers.crash import CRASH_POINTS
from device_agent.operations import Operation
from fleet_protocol.errors import FleetError
from fleet_protocol.install import HealthCheck
from tests.fakes.artifacts import put_in_cache
from tests.fakes.debian import NEEDS_APT, NEEDS_DPKG, Deb, DebianRoot, Repository, artifact, make_deb, release_of
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.install_shell import InstallShell, KilledError, deployment, in_this_process

pytestmark = [NEEDS_DPKG, NEEDS_APT]
Lost = Literal["agent", "worker"]
SICK = {"check": HealthCheck(kind="exec", target="sick", interval_s=1, timeout_s=5, failures=1), "tree": {"sick": b""}}
KILL = 'name="$(basename "$0")"; test ! -e "$DPKG_ROOT/kill.$name" || { rm "$DPKG_ROOT/kill.$name"; kill -9 0; }'
"""Ends its whole process group, once: dpkg, the worker and all, as a lost power would."""
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def app(version: str, number: int, **more: str) -> Deb:
    scripts = {name: KILL.replace('"$(basename "$0")"', name) for name in SCRIPTS} | more
    conffiles = {"etc/app.conf": f"conf {number}", f"etc/app{number}.conf": "x"}
    return make_deb("app", version, scripts=scripts, conffiles=conffiles, files={f"usr/lib/app/only{number}": "x"})


@dataclass
class Debs:
    """The owner has `tool`, whose .deb is nowhere, and `kept`, which apt still has. Release 1 brings `gone`, release 2
    `fresh` instead, and takes `remote` from the repository where a test asks for it. Release 9 does not like to go."""

    tool: tuple[Deb, ...] = field(default_factory=lambda: tuple(make_deb("tool", f"{n}.0") for n in (1, 2)))
    kept: tuple[Deb, ...] = field(default_factory=lambda: tuple(make_deb("kept", f"{n}.0") for n in (1, 2)))
    gone: Deb = field(default_factory=lambda: make_deb("gone", "1.0"))
    fresh: Deb = field(default_factory=lambda: make_deb("fresh", "1.0", files={"usr/share/fresh": "x"}))
    remote: Deb = field(default_factory=lambda: make_deb("remote", "1.0"))
    apps: dict[int, Deb] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.apps = {number: app(f"{number}.0", number) for number in (1, 2, 3)}
        self.apps[1] = app(
            "1.0", 1, prerm=KILL.replace('"$(basename "$0")"', "prerm") + '; test "$1" != failed-upgrade'
        )
        self.apps[9] = app("9.0", 9, prerm="exit 1")

    def of(self, number: int) -> tuple[Deb, ...]:
        if number == 1:
            return self.apps[1], self.gone
        return self.apps[number], self.tool[1], self.kept[1], self.fresh


@pytest.fixture(scope="module")
def debs() -> Debs:
    return Debs()


INSTALLED = {
    None: {"tool": "1.0", "kept": "1.0"},
    1: {"app": "1.0", "gone": "1.0", "tool": "1.0", "kept": "1.0"},
    **{n: {"app": f"{n}.0", "tool": "2.0", "kept": "2.0", "fresh": "1.0"} for n in (2, 3)},
}


@dataclass
class Scene:
    """A device with the machine, and a kill that waits for its moment."""

    device: DeviceUnderTest
    root: DebianRoot
    debs: Debs
    repository: Repository
    shell: InstallShell = field(init=False)
    remote: bool = False
    kill_op: str | None = None
    kill_at: str | None = None
    kill_in: str | None = None
    """A script that ends everything when it is run, before anything else is killed."""
    every_time: bool = False
    killed: int = 0
    running: Operation | None = None

    def release(self, number: int) -> PlannedRelease:
        options: dict[str, Any] = dict(SICK) if number == 9 else {}
        if self.remote and number > 1:
            options["remote"] = [self.debs.remote]
        return release_of(*self.debs.of(number), version=number, **options)

    def run_op(self, asked: Operation) -> dict[str, object]:
        if asked.op == "fetch":
            packed = {number: artifact(*self.debs.of(number)) for number in (1, 2, 3)}
            put_in_cache(self.device.state_dir, *packed.values(), artifact(*self.debs.of(9), tree=SICK["tree"]))
        if asked.op != self.kill_op or (self.killed and not self.every_time and self.kill_in is None):
            return in_this_process(self.device)(asked)
        self.running = asked
        if self.kill_in is not None:
            (self.root.path / f"kill.{self.kill_in}").touch()
        try:
            result = self.device.work(asked.op, crash_at=None if self.kill_in else self.kill_at, **asked.args)
        except FleetError as error:
            return {"ok": False, "code": error.code, "detail": error.detail}
        finally:
            if self.kill_in is not None:
                (self.root.path / f"kill.{self.kill_in}").unlink(missing_ok=True)
                self.kill_in = None
        if result is None:
            self.killed += 1
            raise KilledError
        return {"ok": True, "result": result}

    def install(self, number: int, lost: Lost = "agent") -> None:
        """Publish, and carry on through every kill."""
        self.shell.publish(deployment(f"d-{number}", self.release(number)))
        while True:
            try:
                self.shell.settle()
            except KilledError:
                if lost == "worker":
                    assert self.running is not None
                    self.shell.worker_lost(self.running)
                else:
                    self.shell.start()
            else:
                return

    def expect(self, number: int | None, tree: dict[str, str | None] | None = None) -> None:
        """Exactly this release, by the journal, dpkg's database and the files alike."""
        self.shell.start()
        self.shell.settle()
        slots = self.shell.record.packages.get("app")
        assert self.device.current() == (slots and slots.active)
        wanted = dict(INSTALLED[number])
        if self.remote and number not in (None, 1):
            wanted["remote"] = "1.0"
        assert self.root.packages() == wanted
        found = self.root.tree()
        if tree is not None:
            assert found == tree
        assert [name for name in found if ".dpkg-" in name or name.startswith("kill.")] == []
        state = self.device.state_dir
        left = [*(state / "cache").glob("*"), *(state / "backup").rglob("*.json"), *(state / "slots").rglob("back/*")]
        assert [path for path in left if path.name != "mirrors.json"] == []
        assert [path for path in state.rglob("*") if path.name.endswith((".new", ".part", ".staging"))] == []


@pytest.fixture
def scene(tmp_path: Path, debs: Debs) -> Iterator[Scene]:
    root = DebianRoot(tmp_path / "root")
    root.put(debs.tool[0], debs.kept[0])
    (root.path / "var/cache/apt/archives" / debs.kept[0].file).write_bytes(debs.kept[0].data)
    repository = Repository(tmp_path / "repository")
    with device_under_test(tmp_path, system_root=root.path) as device:
        found = Scene(device, root, debs, repository)
        found.shell = InstallShell(device, found.run_op)
        yield found


def points(*names: str) -> list[str]:
    found = [point for point in CRASH_POINTS if point.startswith(names)]
    assert found
    return found


FETCHED = [("fetch", point) for point in points("package.before_fetched", "package.after_fetched")]
FORWARD = [
    *(("stage", point) for point in points("package.after_take", "package.after_rebuild", "package.after_put_by")),
    *(("activate", point) for point in points("backup.after_copy", "backup.after_list", "backup.after_note")),
    *(("activate", point) for point in points("package.before_install", "package.after_install")),
    *(("activate", point) for point in points("package.before_remove", "package.after_remove")),
    *(("activate", point) for point in points("package.before_mark", "package.after_mark")),
    *(("commit", point) for point in points("package.after_brought", "package.after_forget", "backup.after_drop")),
]
REPAIR = [("activate", point) for point in points("package.before_repair", "package.after_repair")]
BACK = [
    *(("revert", point) for point in points("package.before_return", "package.after_return", "package.after_sweep")),
    *(("revert", point) for point in points("package.before_reinstall", "package.after_reinstall")),
    *(("revert", point) for point in points("package.before_purge", "package.after_purge", "package.after_silence")),
    *(("revert", point) for point in points("backup.after_restore", "backup.after_drop")),
]
HALF = [("revert", point) for point in points("package.before_unpack", "package.after_unpack")]
LOST: list[Lost] = ["agent", "worker"]


def test_every_point_is_in_the_matrix() -> None:
    covered = {point for _, point in FETCHED + FORWARD + REPAIR + BACK + HALF}
    assert covered == {point for point in CRASH_POINTS if point.startswith(("package.", "backup."))}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize(("op", "point"), FETCHED + FORWARD)
def test_an_update_that_is_killed_once(scene: Scene, op: str, point: str, lost: Lost) -> None:
    if op == "fetch" or point == "package.after_take":
        scene.remote = True
        scene.repository.offer(scene.debs.remote)
        scene.repository.serve(scene.root)
    scene.install(1)
    first = scene.root.tree()
    scene.kill_op, scene.kill_at = op, point
    scene.install(2, lost)
    assert scene.killed == 1
    goes_on = lost == "agent" or op == "commit"
    assert scene.shell.outcomes[-1][:2] == ("d-2", "committed") if goes_on else scene.shell.outcomes[-1][2] == "worker"
    scene.expect(2) if goes_on else scene.expect(1, first)
    if lost == "worker":
        scene.kill_op = None
        scene.install(3)
        scene.expect(3)


@pytest.mark.parametrize(("op", "point"), BACK)
def test_a_rollback_that_is_killed_once(scene: Scene, op: str, point: str) -> None:
    """From a release that is not well and whose script fails on the way back. Whoever is lost, it is begun again."""
    scene.install(1)
    first = scene.root.tree()
    scene.kill_op, scene.kill_at = op, point
    scene.install(9, "worker")
    assert scene.killed == 1
    assert scene.shell.outcomes[-1][:2] == ("d-9", "rolled_back")
    scene.expect(1, first)
    scene.kill_op = None
    scene.install(2)
    scene.expect(2)


@pytest.mark.parametrize("point", [point for op, point in FORWARD if op == "activate" and "remove" not in point])
@pytest.mark.parametrize("lost", LOST)
def test_a_first_installation_that_is_killed_once(scene: Scene, point: str, lost: Lost) -> None:
    nothing = scene.root.tree()
    scene.kill_op, scene.kill_at = "activate", point
    scene.install(2, lost)
    assert scene.killed == 1
    scene.expect(2) if lost == "agent" else scene.expect(None, nothing)
    if lost == "worker":
        scene.kill_op = None
        scene.install(3)
        scene.expect(3)


@pytest.mark.parametrize("point", [point for op, point in FORWARD if op == "activate"])
def test_an_update_that_is_killed_every_time_is_given_up(scene: Scene, point: str) -> None:
    """Rule R19. A point that is not passed again, because the step is done, is no kill."""
    scene.install(1)
    scene.kill_op, scene.kill_at, scene.every_time = "activate", point, True
    scene.install(2)
    assert 1 <= scene.killed <= 4
    if scene.killed == 4:
        assert scene.shell.outcomes[-1] == ("d-2", "rolled_back", "interrupted")
    scene.expect(1 if scene.killed == 4 else 2)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("lost", LOST)
def test_an_update_that_is_killed_inside_a_script(scene: Scene, script: str, lost: Lost) -> None:
    """dpkg dies with its script, whose package is then unpacked by half, or not configured."""
    scene.install(1)
    first = scene.root.tree()
    scene.kill_op, scene.kill_in = "activate", script
    scene.install(2, lost)
    assert scene.killed == 1
    scene.expect(2) if lost == "agent" else scene.expect(1, first)
    if lost == "worker":
        scene.install(3)
        scene.expect(3)


@pytest.mark.parametrize("script", ["preinst", "postinst"])
@pytest.mark.parametrize("lost", LOST)
def test_a_first_installation_that_is_killed_inside_a_script(scene: Scene, script: str, lost: Lost) -> None:
    nothing = scene.root.tree()
    scene.kill_op, scene.kill_in = "activate", script
    scene.install(2, lost)
    assert scene.killed == 1
    scene.expect(2) if lost == "agent" else scene.expect(None, nothing)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_rollback_that_is_killed_inside_a_script(scene: Scene, script: str) -> None:
    scene.install(1)
    first = scene.root.tree()
    scene.kill_op, scene.kill_in = "revert", script
    scene.install(9)
    scene.expect(1, first)


@pytest.mark.parametrize(("op", "point"), REPAIR)
def test_an_update_that_is_killed_in_a_script_and_again_while_it_is_repaired(scene: Scene, op: str, point: str) -> None:
    scene.install(1)
    scene.kill_op, scene.kill_at, scene.kill_in, scene.every_time = op, point, "postinst", True
    scene.shell.publish(deployment("d-2", scene.release(2)))
    with pytest.raises(KilledError):
        scene.shell.settle()
    with pytest.raises(KilledError):
        scene.shell.start(), scene.shell.settle()
    assert scene.killed == 2
    scene.kill_op = None
    scene.expect(2)


@pytest.mark.parametrize(("op", "point"), HALF)
def test_a_rollback_of_what_is_half_unpacked_that_is_killed(scene: Scene, op: str, point: str) -> None:
    scene.install(1)
    first = scene.root.tree()
    scene.kill_op, scene.kill_in = "activate", "preinst"
    scene.shell.publish(deployment("d-2", scene.release(2)))
    with pytest.raises(KilledError):
        scene.shell.settle()
    scene.kill_op, scene.kill_at, scene.every_time = op, point, True
    assert scene.running is not None
    scene.shell.worker_lost(scene.running)
    with pytest.raises(KilledError):
        scene.shell.settle()
    assert scene.killed == 2
    scene.kill_op = None
    scene.shell.start()
    scene.shell.settle()
    scene.expect(1, first)
