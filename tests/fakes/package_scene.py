"""A device with a private Debian root, and its operations on releases of packages."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_agent.core.plan import PlannedRelease
from fleet_protocol.errors import FleetError
from tests.fakes.artifacts import put_in_cache
from tests.fakes.debian import Deb, DebianRoot, artifact, make_deb, release_of
from tests.fakes.install_driver import DeviceUnderTest, device_under_test

NEXT = {"a": "b", "b": "a", None: "a"}


def app(version: int, *, scripts: Mapping[str, str] | None = None, **options: Any) -> Deb:
    """A package with configuration files, one of which every version has."""
    files = {f"usr/lib/app/only{version}": "x", f"usr/lib/app/dir{version}/file": "x"}
    conffiles = {"etc/app.conf": f"port = {version}", f"etc/app{version}.conf": "x", "etc/same.conf": "same"}
    usual = {name: f'echo "{name} $*"' for name in ("preinst", "postinst", "prerm", "postrm")}
    return make_deb(
        "app", f"{version}.0", files=files, conffiles=conffiles, scripts=usual | dict(scripts or {}), **options
    )


@dataclass
class PackageScene:
    """Installs releases one after the other, each into the next slot."""

    device: DeviceUnderTest
    root: DebianRoot
    installed: list[tuple[PlannedRelease, str]] = field(default_factory=list)
    """Releases and their trees, the active one last."""

    def stage(self, *debs: Deb, irreversible: bool = False, **options: Any) -> tuple[PlannedRelease, str]:
        """Fetched from the device's repositories where that is asked for, and staged into the spare slot."""
        wanted = release_of(*debs, version=len(self.installed) + 1, **options)
        put_in_cache(self.device.state_dir, artifact(*debs, tree=options.get("tree")))
        self.device.run("fetch", release=wanted)
        active = self.device.current()
        args = {"release": wanted, "slot": NEXT[active], "active": active, "irreversible": irreversible}
        return wanted, str(self.device.run("stage", **args)["tree"])

    def activate(self, wanted: PlannedRelease, tree: str) -> None:
        """Make the staged release the active one."""
        active = self.device.current()
        before = self.installed[-1][0] if self.installed else None
        self.installed.append((wanted, tree))
        slot = NEXT[active]
        self.device.run("activate", release=wanted, slot=slot, previous=active, before=before, tree=tree)

    def commit(self) -> None:
        """The active release has proven itself."""
        self.device.run("commit", release=self.installed[-1][0], slot=self.device.current())

    def revert(self) -> None:
        """Back to the release before, or to none; the slot that is left is emptied."""
        self.installed.pop()
        release, tree = self.installed[-1] if self.installed else (None, None)
        left = "ab"[len(self.installed) % 2]
        previous = NEXT[left] if self.installed else None
        self.device.run("revert", package="app", slot=left, previous=previous, release=release, tree=tree)
        self.device.run("discard", package="app", slot=left)

    def refused(self, *debs: Deb, **options: Any) -> FleetError:
        """The error for which the release can not be staged; nothing of the system may have changed."""
        before = self.root.tree(), self.root.packages()
        try:
            self.stage(*debs, **options)
        except FleetError as error:
            assert (self.root.tree(), self.root.packages()) == before
            return error
        raise AssertionError("it was staged")

    def fails(self, wanted: PlannedRelease, tree: str) -> FleetError:
        """The error for which the release can not be activated."""
        try:
            self.activate(wanted, tree)
        except FleetError as error:
            return error
        raise AssertionError("it was activated")

    def left_over(self) -> list[str]:
        """What an ended attempt must not leave in the state directory."""
        state = self.device.state_dir
        found = [*(state / "cache").glob("*"), *(state / "backup").rglob("*.json"), *(state / "slots").rglob("back/*")]
        return [str(path.relative_to(state)) for path in found if path.name != "mirrors.json"]


@contextmanager
def package_scene(place: Path, **options: Any) -> Iterator[PackageScene]:
    """A device on which nothing is installed."""
    root = DebianRoot(place / "root")
    with device_under_test(place, system_root=root.path, **options) as device:
        yield PackageScene(device, root)
