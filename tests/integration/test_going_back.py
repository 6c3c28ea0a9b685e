"""The way back when something on it does not work: record and disk name the same slot, and what can run, runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.core.plan import PlannedRelease
from device_agent.installers.supervised import SupervisedInstaller
from device_agent.operations import Operation
from fleet_protocol.errors import InstallError
from fleet_protocol.install import HealthCheck
from tests.fakes.artifacts import packed, planned_release, planned_target
from tests.fakes.http_server import FileServer, file_server
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.install_shell import InstallShell, deployment, in_this_process

RUN = b"#!/bin/sh\nexec sleep 1000\n"
SICK = HealthCheck(kind="exec", target="sick", interval_s=1, timeout_s=5, failures=1)


class Scene:
    """Two services in one release. The first of version 1 is a program of the device's own; version 2 is sick."""

    def __init__(self, root: Path, device: DeviceUnderTest, server: FileServer) -> None:
        self.device, self._server = device, server
        self.helper = root / "helper"
        self.helper.write_bytes(RUN)
        self.helper.chmod(0o755)
        self.shell = InstallShell(device, in_this_process(device))
        self.tries_s: list[float] = []
        self.shell.publish(deployment("d-1", self.release(1)))
        self.shell.settle()
        carried_out = self.shell.run_op

        def run_op(asked: Operation) -> dict[str, object]:
            if asked.op == "revert":
                self.tries_s.append(self.shell.now().mono_s)
            return carried_out(asked)

        self.shell.run_op = run_op

    def release(self, version: int) -> PlannedRelease:
        programs = {"bin/run": RUN, "sick": b"#!/bin/sh\nexit 1\n"}
        targets = []
        for part in ("one", "two"):
            artifact = packed({**programs, "v": f"{part}{version}".encode()}, dict.fromkeys(programs, 0o755))
            self._server.serve(artifact.data, f"/{part}{version}")
            targets.append(
                planned_target(
                    artifact,
                    kind="service",
                    run=(str(self.helper),) if (part, version) == ("one", 1) else ("bin/run",),
                    part=part,
                    check=SICK if version == 2 else None,
                    path=f"app/{version}/{part}",
                    urls=[self._server.url(f"/{part}{version}")],
                )
            )
        found: PlannedRelease = planned_release(*targets, version=f"{version}.0", counter=version)
        return found

    def goes_back(self) -> None:
        self.shell.publish(deployment("d-2", self.release(2)))
        self.shell.settle()
        assert self.shell.outcomes[-1][:2] == ("d-2", "rolled_back")
        assert self.shell.record.packages["app"].active == self.device.current() == "a"

    def running(self) -> dict[str, bool]:
        return {status.name: status.running for status in self.device.supervisor.list()}

    def left(self) -> list[Path]:
        return [path for path in (self.device.state_dir / "backup").rglob("*") if path.is_file()]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with file_server() as server, device_under_test(tmp_path) as device:
        yield Scene(tmp_path, device, server)


def test_a_part_that_does_not_start_keeps_no_other_from_going_back(scene: Scene) -> None:
    scene.helper.chmod(0o644)
    scene.goes_back()
    assert scene.running() == {"app-one": False, "app-two": True}
    assert scene.tries_s[-1] - scene.tries_s[0] >= 120, "what it needs may come up only minutes after a boot"
    assert scene.left() == []
    scene.helper.chmod(0o755)
    scene.shell.start()
    assert scene.running() == {"app-one": True, "app-two": True}


def test_a_start_that_fails_before_the_switch_back_is_tried_until_it_works(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: as long as the link names the new slot, the device has not gone back."""
    stop = SupervisedInstaller.quiet

    def hangs(self: SupervisedInstaller, part: object) -> None:
        if len(scene.tries_s) in range(1, 9):
            raise InstallError("start", "the service manager did not answer")
        stop(self, part)  # type: ignore[arg-type]

    monkeypatch.setattr(SupervisedInstaller, "quiet", hangs)
    scene.goes_back()
    assert len(scene.tries_s) == 9
    assert scene.running() == {"app-one": True, "app-two": True}


def test_what_nobody_is_left_to_stop_does_not_stand_in_the_way(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = SupervisedInstaller.quiet

    def gone(self: SupervisedInstaller, part: object) -> None:
        stop(self, part)  # type: ignore[arg-type]
        if scene.tries_s:
            raise InstallError("unsupported", "the account is gone")

    monkeypatch.setattr(SupervisedInstaller, "quiet", gone)
    scene.goes_back()
    assert scene.running() == {"app-one": True, "app-two": True}
