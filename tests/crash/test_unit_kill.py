"""kill -9 before and after every durable effect of an installation that systemd runs.

A unit file, a drop-in, links, the slot and a running process must tell of one release: after each kill, at each boot,
and in the end. The machine and the workers are the real ones; systemd is `tests/fakes/systemd.py`, and the real one in
`tests/device/containers/test_units.py`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from device_agent.core.plan import PlannedRelease
from device_agent.installers.crash import CRASH_POINTS
from device_agent.operations import Operation
from fleet_protocol.errors import FleetError
from fleet_protocol.install import HealthCheck, Unit
from tests.fakes.artifacts import Artifact, packed, planned_release, planned_target
from tests.fakes.http_server import FileServer, file_server
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.install_shell import InstallShell, KilledError, deployment, in_this_process
from tests.fakes.systemd import FakeSystemd, fake_systemd

Lost = Literal["agent", "worker", "power"]
Row = tuple[str, str]
NAME = "app-main.service"
OWN = "etc/systemd/system/app-main.service.d/90-own.conf"
UNIT = """[Unit]
Description=version {0}
[Service]
WorkingDirectory=@SLOT@
Environment=UNIT_VERSION={0}
ExecStart=@SLOT@/bin/run
[Install]
WantedBy=multi-user.target{1}
"""
PROGRAMS = {"bin/run": b"#!/bin/sh\nexec sleep 1000\n", "bin/sick": b"#!/bin/sh\nexit 1\n"}


def artifact(version: int) -> Artifact:
    """Version 2 is to be enabled in another way, too."""
    text = UNIT.format(version, " extra.target" if version == 2 else "").encode()
    tree = {**PROGRAMS, "app.service": text, "version": b"%d" % version}
    return packed(tree, dict.fromkeys(PROGRAMS, 0o755))


VERSIONS = (1, 2, 3, 9)
ARTIFACTS = {version: artifact(version) for version in VERSIONS}


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with file_server() as found:
        for version, content in ARTIFACTS.items():
            found.serve(content.data, f"/{version}")
        yield found


@dataclass
class Scene:
    """A device with the machine, a release for each version, and a kill that waits for its moment."""

    device: DeviceUnderTest
    systemd: FakeSystemd
    server: FileServer
    shell: InstallShell = field(init=False)
    kill: Row | None = None
    killed: int = 0
    every_time: bool = False
    running: Operation | None = None

    def release(self, version: int, *, kind: Any = "service", name: str = NAME) -> PlannedRelease:
        unit = Unit(name=name, file="app.service", scope="system", enable=True) if kind == "service" else None
        sick = HealthCheck(kind="exec", target="bin/sick", interval_s=1, timeout_s=20, failures=1)
        target = planned_target(
            ARTIFACTS[version],
            kind=kind,
            urls=[self.server.url(f"/{version}")],
            check=sick if version == 9 else None,
            unit=unit,
        )
        found: PlannedRelease = planned_release(target, version=f"{version}.0", counter=version)
        return found

    def run_op(self, asked: Operation) -> dict[str, object]:
        if self.kill is None or asked.op != self.kill[0] or (self.killed and not self.every_time):
            return in_this_process(self.device)(asked)
        self.running = asked
        try:
            result = self.device.work(asked.op, crash_at=self.kill[1], **asked.args)
        except FleetError as error:
            return {"ok": False, "code": error.code, "detail": error.detail}
        if result is None:
            self.killed += 1
            raise KilledError
        return {"ok": True, "result": result}

    def install(self, release: PlannedRelease, lost: Lost = "agent") -> None:
        """Publish, and carry on through every kill."""
        self.shell.publish(deployment(f"d-{release.counter}", release))
        while True:
            try:
                self.shell.settle()
            except KilledError:
                self.lose(lost)
            else:
                return

    def lose(self, lost: Lost) -> None:
        self.expect_one_release()
        if lost == "worker":
            assert self.running is not None
            self.shell.worker_lost(self.running)
            return
        if lost == "power":
            self.systemd.cut_power()
            self.systemd.boot()
            self.expect_one_release()
        self.shell.start()

    def expect_one_release(self) -> None:
        """Whatever runs now, started by whomever, is of one release: unit file, drop-in and slot."""
        for pid in self.systemd.pids():
            pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            told = dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
            slot = Path(os.readlink(f"/proc/{pid}/cwd"))  # noqa: PTH115
            version = (slot / "version").read_bytes()
            if told.get(b"UNIT_VERSION") != b"own":
                assert (told[b"UNIT_VERSION"], told[b"FAIRLEAD_VERSION"]) == (version, version + b".0")

    def expect(self, version: int | None, *, name: str = NAME) -> None:
        """Exactly this release, running and enabled, with what its owner had beside it; nothing left over."""
        self.shell.start()
        self.shell.settle()
        slots = self.shell.record.packages.get("app")
        active = slots and slots.active
        assert self.device.current() == active
        assert [(path, text) for path, text in self.systemd.files().items() if path == OWN] == [(OWN, "[Service]\n")]
        state = self.device.state_dir
        assert [path for path in (state / "backup").rglob("*") if path.is_file()] == []
        assert list(state.rglob("quiet")) == []
        assert [path for path in state.rglob("*") if path.name.endswith((".new", ".part", ".staging"))] == []
        if version is None:
            assert (active, self.systemd.pids(), set(self.systemd.files())) == (None, [], {OWN})
            return
        self.expect_one_release()
        (service,) = self.device.services.list()
        assert (service.version, service.running, service.restarts) == (f"{version}.0", True, 0)
        assert self.systemd.pids() == [service.pid]
        assert self.systemd.show(name, "UnitFileState") == "enabled"
        links = {f"etc/systemd/system/{target}.wants/{name}" for target in targets(version)}
        own = {OWN, f"etc/systemd/system/{name}", f"etc/systemd/system/{name}.d/50-fairlead.conf"}
        assert set(self.systemd.files()) == links | own


def targets(version: int) -> tuple[str, ...]:
    return ("multi-user.target", "extra.target") if version == 2 else ("multi-user.target",)


@pytest.fixture
def scene(tmp_path: Path, server: FileServer) -> Iterator[Scene]:
    with (
        fake_systemd(tmp_path / "root") as systemd,
        device_under_test(tmp_path, service_manager="systemd", system_root=systemd.root) as device,
    ):
        systemd.write(OWN, "[Service]\n")
        found = Scene(device, systemd, server)
        found.shell = InstallShell(device, found.run_op)
        yield found


def unit_points(*names: str) -> list[str]:
    return [f"unit.{name}" for name in names]


BEGIN = ["backup.after_copy", "backup.after_list", "backup.after_note"]
PUT = unit_points("after_hold", "after_drop_in", "after_file", "after_record", "after_reload", "after_enable")
GO = unit_points("after_release", "after_start")
QUIET = unit_points("before_guard", "after_guard", "after_stop")
BACK = ["backup.after_restore", *unit_points("after_restore", "after_reread", "after_let_go", "after_start")]
AWAY = unit_points("after_removal", "after_forget")
FORWARD: list[Row] = [("activate", point) for point in QUIET + BEGIN + PUT + GO]
BACKWARD: list[Row] = [("revert", point) for point in [*QUIET, *BACK, "backup.after_drop"]]
LOST: list[Lost] = ["agent", "power"]


def test_every_point_is_in_the_matrix() -> None:
    ours = {point for _, point in FORWARD + BACKWARD} | set(AWAY)
    assert ours == {point for point in CRASH_POINTS if point.startswith(("unit.", "backup."))}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize(("op", "point"), [*FORWARD, ("commit", "backup.after_drop")])
def test_an_update_that_is_killed_once(scene: Scene, op: str, point: str, lost: Lost) -> None:
    scene.install(scene.release(1))
    scene.kill = (op, point)
    scene.install(scene.release(2), lost)
    assert scene.killed == 1
    scene.expect(2)


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize(("op", "point"), BACKWARD)
def test_a_rollback_that_is_killed_once(scene: Scene, op: str, point: str, lost: Lost) -> None:
    scene.install(scene.release(1))
    before = scene.systemd.files()
    scene.kill = (op, point)
    scene.install(scene.release(9), lost)
    assert scene.killed == 1
    assert scene.shell.outcomes[-1] == ("d-9", "rolled_back", "unhealthy")
    scene.expect(1)
    assert scene.systemd.files() == before


@pytest.mark.parametrize("point", BEGIN + PUT + GO)
def test_an_update_whose_worker_is_killed_goes_back(scene: Scene, point: str) -> None:
    scene.install(scene.release(1))
    before = scene.systemd.files()
    scene.kill = ("activate", point)
    scene.install(scene.release(2), "worker")
    assert scene.shell.outcomes[-1] == ("d-2", "rolled_back", "worker")
    scene.expect(1)
    assert scene.systemd.files() == before


@pytest.mark.parametrize("lost", ["worker", "power"])
@pytest.mark.parametrize("point", [point for point in BEGIN + PUT + GO if point != "backup.after_copy"])
def test_a_first_installation_that_is_killed_once(scene: Scene, point: str, lost: Lost) -> None:
    scene.kill = ("activate", point)
    scene.install(scene.release(1), lost)
    assert scene.killed == 1
    scene.expect(None if lost == "worker" else 1)


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("point", AWAY)
def test_a_unit_that_goes_for_good_is_gone(scene: Scene, point: str, lost: Lost) -> None:
    """The next release has no service any more."""
    scene.install(scene.release(1))
    scene.kill = ("activate", point)
    scene.install(scene.release(2, kind="files"), lost)
    assert scene.killed == 1
    assert (scene.systemd.pids(), set(scene.systemd.files())) == ([], {OWN})
    scene.kill = None
    scene.install(scene.release(3))
    scene.expect(3)


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("point", ["unit.after_file", "unit.after_removal", "unit.after_record"])
def test_a_unit_may_change_its_name(scene: Scene, point: str, lost: Lost) -> None:
    scene.install(scene.release(1, name="before.service"))
    scene.kill = ("activate", point)
    scene.install(scene.release(3), lost)
    assert scene.killed == 1
    scene.expect(3)


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("op", ["activate", "revert"])
def test_the_systems_own_unit_comes_back(scene: Scene, op: str, lost: Lost) -> None:
    """A first installation over a unit that the distribution has; the release is sick."""
    home = scene.device.root / "own"
    home.mkdir()
    (home / "version").write_text("0")
    text = f"[Service]\nWorkingDirectory={home}\nEnvironment=UNIT_VERSION=own\nExecStart=/bin/sleep 1000\n"
    scene.systemd.write(f"usr/lib/systemd/system/{NAME}", text + "[Install]\nWantedBy=multi-user.target\n")
    scene.systemd.ctl("enable", NAME)
    scene.systemd.ctl("start", NAME)
    before = scene.systemd.files()
    scene.kill = (op, "unit.after_file" if op == "activate" else "unit.after_restore")
    scene.install(scene.release(9), lost)
    assert (scene.killed, scene.shell.outcomes[-1][1]) == (1, "rolled_back")
    assert scene.systemd.files() == before
    (pid,) = scene.systemd.pids()
    assert b"UNIT_VERSION=own" in Path(f"/proc/{pid}/environ").read_bytes()


def test_an_update_that_is_killed_every_time_is_given_up(scene: Scene) -> None:
    """Rule R19."""
    scene.install(scene.release(1))
    scene.kill, scene.every_time = ("activate", "unit.after_reload"), True
    scene.install(scene.release(2), "power")
    assert scene.killed == 4
    assert scene.shell.outcomes[-1] == ("d-2", "rolled_back", "interrupted")
    scene.kill = None
    scene.expect(1)
