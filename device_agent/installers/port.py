"""What every kind of release has in common: the port of its installer.

1. Each call may come twice, and again after a kill at any instant; the second call ends like the first.
2. A release is of one or more kinds. All are staged before any is activated; they share the package's slots, one
   switch, and are committed or reverted together.
3. What an installer changes outside the slots, it first puts into `backup/<package>/`, so that `revert` finds the
   way back from the disk alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_agent.core.plan import PlannedRelease, PlannedTarget
from device_agent.installers.slots import SlotName, Slots
from device_agent.supervisor.supervisor import Supervisor
from fleet_protocol.catalogue import Kind
from fleet_protocol.install import HealthCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What installers use of the device."""

    state_dir: Path
    variables: Mapping[str, str]
    supervisor: Supervisor

    def slots(self, package: str) -> Slots:
        """The package's two slots."""
        return Slots(self.state_dir, package)

    @property
    def cache(self) -> Path:
        """Where downloaded artifacts are, by digest."""
        return self.state_dir / "cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A release's targets of one kind, in one slot."""

    release: PlannedRelease
    targets: tuple[PlannedTarget, ...]
    slot: SlotName

    @property
    def package(self) -> str:
        """The release's package."""
        return self.release.package


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One look at a release on probation. `code` is None where it is well."""

    code: str | None
    detail: str = ""


class Installer(Protocol):
    """One kind of release. Errors are InstallErrors, or OSErrors of the disk."""

    kind: Kind

    def stage(self, part: Part) -> None:
        """Refuse what can never be activated here. The slot holds the content; nothing is active yet."""

    def activate(self, part: Part) -> None:
        """Back up, stop what runs, switch to the slot, start."""

    def check(self, part: Part) -> Verdict:
        """Ask the active release once how it is."""

    def commit(self, part: Part) -> None:
        """Drop what only `revert` would have needed."""

    def revert(self, package: str, back: Part | None) -> None:
        """Undo everything of this kind; then run `back`, the part of the previous release, if it had one.

        The slot that `back` names is active already, or none is.
        """


def health_check(part: Part) -> HealthCheck | None:
    """The first check that one of the part's targets names."""
    return next((target.install.check for target in part.targets if target.install.check is not None), None)
