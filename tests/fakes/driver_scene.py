"""A device with the machine, a fake kernel, and releases of two drivers and the service that uses them."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from device_agent.core.plan import PlannedDeployment, PlannedRelease, PlannedTarget
from device_agent.installers.tree import tree_digest
from device_agent.operations import Operation
from fleet_protocol.errors import FleetError
from fleet_protocol.install import Driver, HealthCheck
from tests.fakes.artifacts import Artifact, packed, planned_release, planned_target
from tests.fakes.elf import KERNEL, Module
from tests.fakes.http_server import FileServer
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.install_shell import InstallShell, KilledError, deployment, in_this_process
from tests.fakes.kernel import OTHER, FakeKernel

Lost = Literal["agent", "worker", "power"]
FAILS, PANICS, SICK = 9, 8, 7
"""Releases whose client can not be loaded, whose core takes the device down, whose check fails."""
RUN = b'#!/bin/sh\nmkdir -p "$USERS"\n: > "$USERS/$$"\nexec sleep 1000\n'
CHECK = HealthCheck(kind="exec", target="bin/sick", interval_s=1, timeout_s=5, failures=1)


def core(version: int, kernel: str = KERNEL) -> Module:
    says = {"panics": "y"} if version == PANICS else {}
    return Module(name="demo_core", kernel=kernel, version=f"{version}.0", build=b"core %d" % version, says=says)


def client(version: int, kernel: str = KERNEL) -> Module:
    says = {"needs": f"demo_core:{version}.0"} | ({"fails": "y"} if version == FAILS else {})
    build = b"client %d" % version
    return Module(
        name="demo_client", kernel=kernel, version=f"{version}.0", build=build, says=says, depends=("demo_core",)
    )


def modules(make: Any, version: int) -> Artifact:
    """One driver, for the kernel that runs and another one that the device has."""
    return packed({f"{kernel}/{make(version).name}.ko": make(version, kernel).file() for kernel in (KERNEL, OTHER)})


def programs(version: int) -> Artifact:
    tree = {"bin/run": RUN, "bin/sick": b"#!/bin/sh\nexit 1\n", "version": b"%d" % version}
    return packed(tree, {"bin/run": 0o755, "bin/sick": 0o755})


VERSIONS = (1, 2, 3, SICK, PANICS, FAILS)
ARTIFACTS = {
    version: {"client": modules(client, version), "core": modules(core, version), "web": programs(version)}
    for version in VERSIONS
}


@dataclass
class DriverScene:
    """A release for each version, and a kill that waits for its moment."""

    device: DeviceUnderTest
    kernel: FakeKernel
    server: FileServer
    shell: InstallShell = field(init=False)
    with_service: bool = True
    kill_op: str | None = None
    kill_at: str | None = None
    every_time: bool = False
    killed: int = 0
    running: Operation | None = None
    on_revert: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.shell = InstallShell(self.device, self.run_op, kernel=self.kernel.release)
        self.remember()

    def remember(self) -> None:
        """What is there now is what a device without the package has."""
        self.before = self.kernel.system(), self.kernel.loaded()

    def release(self, version: int) -> PlannedRelease:
        """The client comes first in the catalogue; that it needs the core is in its file only."""
        parts = ["client", "core", *(["web"] if self.with_service else [])]
        found: PlannedRelease = planned_release(
            *(self._target(version, part) for part in parts), version=f"{version}.0", counter=version
        )
        return found

    def _target(self, version: int, part: str) -> PlannedTarget:
        urls = [self.server.url(f"/{version}/{part}")]
        place = {"part": part, "path": f"app/{version}/{part}.tar.zst", "urls": urls}
        artifact = ARTIFACTS[version][part]
        if part == "web":
            check = CHECK if version == SICK else None
            return planned_target(artifact, kind="service", run=("bin/run",), check=check, **place)
        target = planned_target(artifact, kind="driver", **place)
        driver = Driver(module=f"demo_{part}", kernels=(KERNEL, OTHER), load=part == "client")
        return replace(target, install=replace(target.install, driver=driver))

    def run_op(self, asked: Operation) -> dict[str, object]:
        if asked.op != self.kill_op or (self.killed and not self.every_time):
            return in_this_process(self.device)(asked)
        self.running = asked
        if asked.op == "revert" and self.on_revert is not None:
            self.on_revert, armed = None, self.on_revert
            armed()
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
        self.shell.publish(self.deployment(version))
        while True:
            try:
                self.shell.settle()
            except KilledError:
                self.lose(lost)
            else:
                return

    def deployment(self, version: int) -> PlannedDeployment:
        return deployment(f"d-{version}", self.release(version))

    def lose(self, lost: Lost) -> None:
        assert self.running is not None
        if lost == "worker":
            self.shell.worker_lost(self.running)
            return
        if lost == "power":
            self.cut_power()
        self.shell.start()

    def cut_power(self) -> None:
        """Nothing runs and nothing is loaded any more; the next boot has another name."""
        for path in (self.device.state_dir / "services").glob("*/pid.json"):
            value = json.loads(path.read_text())
            if value["process"] is None:
                continue
            with suppress(ProcessLookupError):
                os.killpg(value["process"]["pid"], signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(value["process"]["pid"], 0)
            path.write_text(json.dumps(value | {"process": value["process"] | {"boot": "the boot before"}}))
        self.kernel.boot()

    def expect(self, version: int | None) -> None:
        """Exactly this release, by the journal, the slots, the kernel and the processes; and after a boot, too."""
        self.shell.start()
        self.shell.settle()
        slots = self.shell.record.packages.get("app")
        active = slots and slots.active
        assert self.device.current() == active
        self.expect_nothing_left()
        self.expect_running(version)
        self.expect_system(version)
        self.cut_power()
        self.shell.start()
        self.shell.settle()
        self.expect_running(version)
        self.expect_system(version)
        if version is None:
            assert active is None
            return
        assert slots is not None
        content = slots.content(active)
        assert content is not None
        assert (content.release.counter, content.standing) == (version, "good")
        assert tree_digest(self.device.slot(active)) == content.tree

    def expect_running(self, version: int | None) -> None:
        running = [status.version for status in self.device.supervisor.list() if status.running]
        assert running == ([f"{version}.0"] if self.with_service and version is not None else [])

    def expect_system(self, version: int | None) -> None:
        assert "disagrees" not in (self.kernel.root / "fake/kmsg").read_text()
        loaded = self.before[1] if version is None else self.before[1] | both(version)
        assert self.kernel.loaded() == loaded
        found = {path: data for path, data in self.kernel.system().items() if "/modules." not in path}
        own = {path: data for path, data in self.before[0].items() if "/modules." not in path}
        if version is not None:  # whoever had a module of that name there
            own = {path: data for path, data in own.items() if "updates/" not in path} | files(version)
        assert found == own, sorted(found.keys() ^ own.keys())

    def expect_nothing_left(self) -> None:
        state = self.device.state_dir
        assert [path.name for path in (state / "cache").glob("*") if path.name != "mirrors.json"] == []
        assert list((state / "backup").rglob("*.json")) == []
        left = [*state.rglob("*"), *(self.kernel.root / "lib").rglob("*"), *(self.kernel.root / "etc").rglob("*")]
        assert [path for path in left if path.name.endswith((".new", ".part", ".staging"))] == []


def both(version: int) -> dict[str, str]:
    """What is loaded of a release."""
    return {"demo_core": f"{version}.0", "demo_client": f"{version}.0"}


def files(version: int) -> dict[str, bytes]:
    """What a release has in the system."""
    found = {
        f"lib/modules/{kernel}/updates/{make(version).name}.ko": make(version, kernel).file()
        for kernel in (KERNEL, OTHER)
        for make in (core, client)
    }
    return found | {"etc/modules-load.d/fairlead-app-client.conf": b"demo_client\n"}


@contextmanager
def driver_scene(root: Path, server: FileServer) -> Iterator[DriverScene]:
    """A device on which nothing of the package was ever installed."""
    for version, parts in ARTIFACTS.items():
        for part, artifact in parts.items():
            server.serve(artifact.data, f"/{version}/{part}")
    kernel = FakeKernel(root / "system")
    users = {"USERS": str(kernel.root / "fake/users/demo_client")}
    with device_under_test(root, system_root=kernel.root, variables=users) as device:
        device.kernel = kernel
        yield DriverScene(device, kernel, server)
