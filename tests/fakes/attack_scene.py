"""A device that runs a good release while something hostile is tried, and what must hold afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from device_agent.core.plan import PlannedRelease, PlannedTarget
from device_agent.installers.tree import tree_digest
from device_agent.operations import Operation
from tests.fakes.artifacts import Artifact, packed, planned_release, planned_target
from tests.fakes.http_server import FileServer, file_server
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.install_shell import InstallShell, deployment, in_this_process

CarryOut = Callable[[DeviceUnderTest], Callable[[Operation], dict[str, object]]]
RUN = b"#!/bin/sh\nexec sleep 1000\n"
GOOD = {version: packed({"run": RUN, "version": b"%d" % version}, {"run": 0o755}) for version in (1, 2, 3)}


@dataclass
class AttackScene:
    """Release 1 runs; release 2 is attacked; release 3 must still install."""

    device: DeviceUnderTest
    server: FileServer
    shell: InstallShell
    outside: Path
    """A directory beside the device's, in which nothing may appear."""
    before: tuple[str, int | None] = ("", None)

    def target(self, version: int, artifact: Artifact | None = None, **how: Any) -> PlannedTarget:
        artifact = artifact or GOOD[version]
        urls = how.pop("urls", None) or [self.server.serve(artifact.data, f"/{version}")]
        return planned_target(artifact, kind="service", run=("run",), urls=urls, **how)

    def release(self, version: int, *targets: PlannedTarget) -> PlannedRelease:
        found: PlannedRelease = planned_release(
            *(targets or (self.target(version),)), version=f"{version}.0", counter=version
        )
        return found

    def install(self, release: PlannedRelease) -> None:
        self.shell.publish(deployment(f"d-{release.counter}", release))
        self.shell.settle()

    def now(self) -> tuple[str, int | None]:
        """What runs, to the byte and to the process."""
        return tree_digest(self.device.slot("a")), self.device.supervisor.status("app").pid

    def rejects(self, code: str, *targets: PlannedTarget, attack: bool = True) -> None:
        """The attempt at release 2 ends with this code, as an attack or not, and nothing else has changed."""
        self.install(self.release(2, *targets))
        assert self.shell.outcomes[-1][::2] == ("d-2", code)
        assert self.shell.attacks == ([code] if attack else [])
        self.unharmed()

    def unharmed(self) -> None:
        """Release 1 runs as before, nothing is left of the attempt, and release 3 installs."""
        assert self.device.current() == "a"
        assert self.now() == self.before
        self.shell.settle()
        assert not self.device.slot("b").exists()
        left = {path.name for path in (self.device.state_dir / "cache").iterdir()}
        assert left <= {"mirrors.json"}
        assert list(self.outside.iterdir()) == []
        self.install(self.release(3))
        assert self.shell.outcomes[-1] == ("d-3", "committed", None)
        assert self.device.current() == "b"
        assert self.device.supervisor.status("app").version == "3.0"


@contextmanager
def attack_scene(root: Path, *, carry_out: CarryOut = in_this_process, **settings: Any) -> Iterator[AttackScene]:
    """Everything it started ends with the block. `carry_out` makes what runs a device's operations."""
    (root / "device").mkdir()
    (root / "outside").mkdir()
    with file_server() as server, device_under_test(root / "device", **settings) as device:
        shell = InstallShell(device, carry_out(device))
        scene = AttackScene(device, server, shell, root / "outside")
        scene.install(scene.release(1))
        assert shell.outcomes == [("d-1", "committed", None)]
        scene.before = scene.now()
        yield scene


def altered(target: PlannedTarget, **fields: Any) -> PlannedTarget:
    """The target with some of its signed numbers changed."""
    return replace(target, **fields)
