"""kill -9 before and after every durable effect of an installation.

Each time the device ends in exactly the old or the new release, running, with nothing left over, and the next release
still installs. Killed are the whole agent, the worker alone, or the device; the machine is the real one.
"""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest

from device_agent.core.plan import PlannedRelease
from device_agent.installers.crash import CRASH_POINTS
from device_agent.installers.tree import tree_digest
from device_agent.operations import Operation
from fleet_protocol.errors import FleetError
from fleet_protocol.install import HealthCheck
from tests.fakes.artifacts import Artifact, packed, planned_release, planned_target
from tests.fakes.http_server import FileServer, file_server
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.install_shell import InstallShell, KilledError, deployment, in_this_process
from tests.fakes.waiting import until

Lost = Literal["agent", "worker", "power"]
RUN = b"#!/bin/sh\nexec sleep 1000\n"
BROKEN = b"#!/bin/sh\nexit 1\n"
SICK = HealthCheck(kind="exec", target="bin/run", interval_s=1, timeout_s=5, failures=1)


def artifact(version: int, program: bytes = RUN, size: int = 300_000) -> Artifact:
    data = hashlib.shake_128(b"%d" % version).digest(size)
    return packed({"bin/run": program, "version": b"%d" % version, "data": data}, {"bin/run": 0o755})


ARTIFACTS = {1: artifact(1), 2: artifact(2), 3: artifact(3), 4: artifact(4, size=3_000_000), 9: artifact(9, BROKEN)}


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
    server: FileServer
    shell: InstallShell = field(init=False)
    kind: Any = "service"
    kill_op: str | None = None
    kill_at: str | None = None
    every_time: bool = False
    killed: int = 0
    running: Operation | None = None

    def release(self, version: int) -> PlannedRelease:
        run = ("bin/run",) if self.kind == "service" else ()
        urls, check = [self.server.url(f"/{version}")], SICK if version == 9 and not run else None
        target = planned_target(ARTIFACTS[version], kind=self.kind, urls=urls, run=run, check=check)
        found: PlannedRelease = planned_release(target, version=f"{version}.0", counter=version)
        return found

    def run_op(self, asked: Operation) -> dict[str, object]:
        if asked.op == "check" and asked.args["release"]["counter"] == 9 and self.kind == "service":
            until(lambda: self.device.supervisor.status("app").ended)  # the machine's time is virtual, its is not
        if asked.op != self.kill_op or (self.killed and not self.every_time):
            return in_this_process(self.device)(asked)
        self.running = asked
        try:
            result = self.device.work(asked.op, crash_at=self.kill_at, **asked.args)
        except FleetError as error:
            return {"ok": False, "code": error.code, "detail": error.detail}
        if result is None:
            self.killed += 1
            raise KilledError
        return {"ok": True, "result": result}

    def install(self, version: int, lost: Lost = "agent") -> None:
        """Publish, and carry on through every kill."""
        self.shell.publish(deployment(f"d-{version}", self.release(version)))
        while True:
            try:
                self.shell.settle()
            except KilledError:
                self.lose(lost)
            else:
                return

    def lose(self, lost: Lost) -> None:
        assert self.running is not None
        if lost == "worker":
            self.shell.worker_lost(self.running)
            return
        if lost == "power":
            self.cut_power()
        self.shell.start()

    def cut_power(self) -> None:
        """Nothing runs any more, and the next boot has another name."""
        for path in (self.device.state_dir / "services").glob("*/pid.json"):
            value = json.loads(path.read_text())
            if value["process"] is None:
                continue
            with suppress(ProcessLookupError):
                os.killpg(value["process"]["pid"], signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(value["process"]["pid"], 0)
            path.write_text(json.dumps(value | {"process": value["process"] | {"boot": "the boot before"}}))

    def expect(self, version: int | None) -> None:
        """Exactly this release, whole and running, by the journal, the disk and the processes alike."""
        self.shell.start()
        self.shell.settle()
        slots = self.shell.record.packages.get("app")
        active = slots and slots.active
        assert self.device.current() == active
        assert self.processes() == (
            [] if version is None or self.kind != "service" else [str(self.device.slot(active))]
        )
        self.expect_nothing_left()
        if version is None:
            assert active is None
            assert list((self.device.state_dir / "slots/app").glob("*")) == []
            return
        assert slots is not None
        content = slots.content(active)
        assert content is not None
        assert (content.release.counter, content.standing) == (version, "good")
        assert (self.device.slot(active) / "version").read_bytes() == b"%d" % version
        assert tree_digest(self.device.slot(active)) == content.tree

    def expect_nothing_left(self) -> None:
        state = self.device.state_dir
        assert [path.name for path in (state / "cache").glob("*") if path.name != "mirrors.json"] == []
        assert list((state / "backup").rglob("*.json")) == []
        assert [path for path in state.rglob("*") if path.name.endswith((".new", ".part", ".staging"))] == []

    def processes(self) -> list[str]:
        """Working directories of all that runs out of this device's slots."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.cwd().startswith(str(self.device.state_dir)):
                    found.append(process.cwd())
        return found


@pytest.fixture
def scene(tmp_path: Path, server: FileServer) -> Iterator[Scene]:
    with device_under_test(tmp_path) as device:
        found = Scene(device, server)
        found.shell = InstallShell(device, found.run_op)
        yield found


def points(*prefixes: str) -> list[str]:
    found = [point for point in CRASH_POINTS if point.startswith(prefixes)]
    assert found
    return found


def with_losses(rows: list[tuple[str, str]], powered: tuple[str, ...]) -> list[tuple[Lost, str, str]]:
    """Every point with a lost agent and a lost worker; with lost power where something runs or is half written."""
    lost: list[Lost] = ["agent", "worker", "power"]
    return [(loss, op, point) for loss in lost for op, point in rows if loss != "power" or op in powered]


FORWARD = [
    *(("fetch", point) for point in points("fetch.")),
    *(("stage", point) for point in points("stage.")),
    *(("activate", point) for point in points("activate.", "service.")),
    *(("commit", point) for point in points("commit.")),
]
BACK = [
    *(("revert", point) for point in points("revert.", "service.")),
    *(("discard", point) for point in points("discard.")),
]
STOPS = {"service.before_stop", "service.after_unwanted", "service.after_signal", "service.after_stop"}
"""Nothing is stopped where nothing ran; and a release that has crashed needs no signal."""


ELSEWHERE = ("backup.", "unit.", "package.", "driver.", "left_over.")
"""Points that only other kinds of release pass, and what a lost commit leaves (test_driver_kill)."""


def test_every_point_is_in_the_matrix() -> None:
    assert {point for _, point in FORWARD + BACK} == {p for p in CRASH_POINTS if not p.startswith(ELSEWHERE)}


@pytest.mark.parametrize(("lost", "op", "point"), with_losses(FORWARD, powered=("stage", "activate")))
def test_an_update_that_is_killed_once(scene: Scene, op: str, point: str, lost: Lost) -> None:
    scene.install(1)
    scene.kill_op, scene.kill_at = op, point
    scene.install(2, lost)
    assert scene.killed == 1
    goes_on = lost != "worker" or op == "commit"
    assert scene.shell.outcomes[-1][:2] == ("d-2", "committed") if goes_on else scene.shell.outcomes[-1][2] == "worker"
    scene.expect(2 if goes_on else 1)
    scene.kill_op = None
    scene.install(3)
    scene.expect(3)


@pytest.mark.parametrize(("lost", "op", "point"), with_losses(BACK, powered=("revert",)))
def test_a_rollback_that_is_killed_once(scene: Scene, op: str, point: str, lost: Lost) -> None:
    scene.install(1)
    scene.kill_op, scene.kill_at = op, point
    scene.install(9, lost)
    if point != "service.after_signal":  # what has crashed needs no signal
        assert scene.killed == 1
    assert scene.shell.outcomes[-1][:2] == ("d-9", "rolled_back")
    scene.expect(1)
    scene.kill_op = None
    scene.install(2)
    scene.expect(2)


@pytest.mark.parametrize("point", [point for point in points("activate.", "service.") if point not in STOPS])
@pytest.mark.parametrize("lost", ["agent", "worker"])
def test_a_first_installation_that_is_killed_once(scene: Scene, point: str, lost: Lost) -> None:
    scene.kill_op, scene.kill_at = "activate", point
    scene.install(1, lost)
    assert scene.killed == 1
    scene.expect(1 if lost == "agent" else None)
    scene.kill_op = None
    scene.install(2)
    scene.expect(2)


@pytest.mark.parametrize("point", points("activate.", "service."))
def test_an_update_that_is_killed_every_time_is_given_up(scene: Scene, point: str) -> None:
    """Rule R19: attempts are bounded. A point that is not passed again, because the step is done, is no kill."""
    scene.install(1)
    scene.kill_op, scene.kill_at, scene.every_time = "activate", point, True
    scene.install(2)
    assert 1 <= scene.killed <= 4
    if scene.killed == 4:
        assert scene.shell.outcomes[-1] == ("d-2", "rolled_back", "interrupted")
    scene.expect(1 if scene.killed == 4 else 2)


@pytest.mark.parametrize("point", points("activate.", "revert."))
def test_files_that_are_killed_once(scene: Scene, point: str) -> None:
    scene.kind = "files"
    scene.install(1)
    op = point.partition(".")[0]
    scene.kill_op, scene.kill_at = op, point
    scene.install(9 if op == "revert" else 2)
    assert scene.killed == 1
    scene.expect(1 if op == "revert" else 2)


def test_an_interrupted_download_goes_on(scene: Scene) -> None:
    """At most one block is fetched twice."""
    scene.server.requests.clear()
    scene.kill_op, scene.kill_at = "fetch", "fetch.after_block"
    scene.install(4)
    assert scene.killed == 1
    assert scene.server.ranges[0] is None
    assert int((scene.server.ranges[1] or "").removeprefix("bytes=").removesuffix("-")) > 0
    scene.expect(4)
