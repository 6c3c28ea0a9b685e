"""The Debian packages that a part brings, and whether they can be installed here."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.adapters.files import make_dir, remove_tree
from device_agent.core.plan import PlannedTarget
from device_agent.installers.apt import Apt
from device_agent.installers.debian_control import ALL, Control
from device_agent.installers.debian_world import DebianWorld, problems, replaced
from device_agent.installers.dpkg import Dpkg, Entry
from device_agent.installers.package_was import Role, at, instance
from device_agent.installers.slot_debs import Dependency, SlotDebs, digest
from fleet_protocol.archive import check_member_name
from fleet_protocol.errors import InstallError, ProtocolError
from fleet_protocol.install import DebianPackage

_SPARE_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """One .deb that shall be installed; its bytes are the ones that were signed, or that apt verified."""

    control: Control
    path: Path
    role: Role

    def is_there(self, entries: Iterable[Entry]) -> bool:
        """Whether nothing is left to do for it: what only others need is as good as any other version."""
        if self.role == "dependency":
            found = instance(entries, self.control)
            return found is not None and found.whole
        return is_installed(entries, self.control)


def is_installed(entries: Iterable[Entry], control: Control) -> bool:
    """Whether exactly this is installed."""
    found = at(entries, control.name, control.architecture)
    return found is not None and found.whole and found.control.version == control.version


class PackageSet:
    """What one part brings. `content` is where the part's content stands."""

    def __init__(self, target: PlannedTarget, content: Path, kept: SlotDebs, dpkg: Dpkg) -> None:
        self._install, self._content, self._kept, self._dpkg = target.install, content, kept, dpkg

    def take_downloads(self, cache: Path) -> None:
        """What was fetched from repositories belongs to the slot from now on."""
        for package in self._install.packages:
            if package.file is None:
                self._kept.take(cache / package.sha256, package.sha256)

    def named(self) -> list[Coming]:
        """What the release names, each the signed bytes and what is said of them; ProtocolError otherwise."""
        if not self._install.packages:
            raise InstallError("unsupported", "the release names no Debian package")
        return [self._named(package) for package in self._install.packages]

    def dependencies(self) -> list[Coming]:
        """What it needs besides, as it was found when it was staged."""
        return [
            Coming(
                control=self._read(self._kept.deb(one.sha256), one.sha256),
                path=self._kept.deb(one.sha256),
                role="dependency",
            )
            for one in self._kept.dependencies()
        ]

    def complete(self, entries: Sequence[Entry], leaving: Iterable[Control], apt: Apt) -> list[Coming]:
        """All that must be installed for the release, dependencies from repositories included if it allows them.

        They are in the slot afterwards. Raises InstallError `dependencies` with all that is in the way; TransportError.
        """
        native = self._check_architectures()
        coming = self.named()
        trouble = self._trouble(coming, entries, leaving, native)
        if trouble and self._install.dependencies == "repository" and apt.available:
            coming += self._from_repository(coming, entries, apt)
            trouble = self._trouble(coming, entries, leaving, native)
        if trouble:
            raise InstallError("dependencies", "; ".join(trouble)[:400])
        found = [one for one in coming if one.role == "dependency"]
        self._kept.write_dependencies(_dependency(one) for one in found)
        return coming

    def _named(self, package: DebianPackage) -> Coming:
        if package.file is None:
            path = self._kept.deb(package.sha256)
        else:
            path = self._content / check_member_name(package.file)
        control = self._read(path, package.sha256)
        said, signed = (
            (control.name, control.version, control.architecture),
            (package.name, package.version, package.architecture),
        )
        if said != signed:
            raise ProtocolError("format", f"{path.name} is {' '.join(said)}, {' '.join(signed)} is signed")
        return Coming(control=control, path=path, role="release")

    def _read(self, path: Path, sha256: str) -> Control:
        if not path.is_file() or path.is_symlink():
            raise InstallError("altered", f"the package {path.name} is not there")
        if digest(path) != sha256:
            raise ProtocolError("digest", f"the package {path.name} is not the one that is signed")
        return self._dpkg.read(path)

    def _check_architectures(self) -> str:
        native, *foreign = self._dpkg.architectures()
        for package in self._install.packages:
            if package.architecture not in (ALL, native, *foreign):
                takes = ", ".join((native, *foreign))
                raise InstallError(
                    "unsupported", f"{package.name} is for {package.architecture}, this device takes {takes}"
                )
        return native

    def _trouble(
        self, coming: Iterable[Coming], entries: Sequence[Entry], leaving: Iterable[Control], native: str
    ) -> list[str]:
        fresh = [one.control for one in coming if not one.is_there(entries)]
        present = frozenset(entry.control for entry in entries if entry.present)
        before = DebianWorld(present, native)
        rest = replaced(present, fresh)
        found = list(problems(before, DebianWorld(rest - frozenset(leaving), native)))
        if not found:
            return []
        return min(found, list(problems(before, DebianWorld(rest, native))), key=len)

    def _from_repository(self, coming: Sequence[Coming], entries: Sequence[Entry], apt: Apt) -> list[Coming]:
        """What apt adds to the release. An upgrade of what is installed is no addition."""
        links = self._kept.scratch / "named"
        remove_tree(links)
        make_dir(links)
        for number, one in enumerate(coming):
            (links / f"{number}.deb").symlink_to(one.path)
        found = []
        names = {one.control.name for one in coming}
        for wanted in apt.resolve(sorted(links.iterdir())):
            if wanted.name in names:
                continue
            if any(entry.control.name == wanted.name and entry.present for entry in entries):
                raise InstallError("dependencies", f"{wanted.name} would have to become {wanted.version}")
            deb = apt.download(wanted)
            path = self._kept.take(deb, digest(deb))
            found.append(Coming(control=self._dpkg.read(path), path=path, role="dependency"))
        return found


def check_space(root: Path, coming: Iterable[Coming], entries: Sequence[Entry]) -> None:
    """InstallError `no-space` unless what is unpacked fits beside what is there: dpkg keeps both for a while."""
    needed = sum(one.control.size_kib * 1024 for one in coming if not one.is_there(entries))
    for place in (root, root / "usr", root / "var/lib/dpkg"):
        if needed and place.is_dir():
            disk = os.statvfs(place)
            free = disk.f_bavail * disk.f_frsize
            if free < needed + _SPARE_BYTES:
                raise InstallError("no-space", f"{needed} bytes to install in {place}, {free} free")


def _dependency(one: Coming) -> Dependency:
    control = one.control
    sha256 = one.path.name.removesuffix(".deb")
    return Dependency(name=control.name, version=control.version, architecture=control.architecture, sha256=sha256)
