"""What every kind of release has in common: the port of its installer.

1. Each call may come twice, and again after a kill at any instant; the second call ends like the first.
2. A release has one or more parts. All are staged before any is activated; they share the package's slots and one
   switch, and are committed or reverted together. The order of a change is: every part that runs is quiet, the slot
   is switched, parts that the new release has no more are retired, the new ones are activated.
3. What an installer changes outside the slots, it first puts into its `Backup`, so that `revert` finds the way back
   from the disk alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from device_agent.core.plan import PlannedRelease, PlannedTarget
from device_agent.installers.backup import Backup
from device_agent.installers.programs import Programs
from device_agent.installers.slots import SlotName, Slots
from device_agent.installers.system_files import SystemFiles
from device_agent.supervisor.supervisor import Supervisor
from fleet_protocol.catalogue import Kind
from fleet_protocol.ids import check_id


@dataclass(frozen=True, slots=True, kw_only=True)
class PartId:
    """What a part is called, whatever release it is of."""

    package: str
    part: str
    kind: Kind

    @property
    def name(self) -> str:
        """One name for the part, as a service of it is called: `<package>` or `<package>-<part>`."""
        return f"{self.package}-{self.part}" if self.part else self.package


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One target of a release, in one slot."""

    release: PlannedRelease
    target: PlannedTarget
    slot: SlotName

    @property
    def id(self) -> PartId:
        """What it is called."""
        return PartId(package=self.release.package, part=self.target.part, kind=self.target.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What installers use of the device."""

    state_dir: Path
    variables: Mapping[str, str]
    supervisor: Supervisor
    system_root: Path = Path("/")
    """Where the system's own files are."""
    programs: Programs = field(default_factory=Programs)
    services_by_systemd: bool = False
    """Whether services are systemd units; otherwise the agent's own supervisor runs them."""
    unit_user: str | None = None
    """Whose service manager gets units of scope `user`, where the agent is root; None means the agent's own user's."""

    def slots(self, package: str) -> Slots:
        """The package's two slots."""
        return Slots(self.state_dir, package)

    def content(self, part: Part) -> Path:
        """The directory in which the part's content stands."""
        slot = self.slots(part.release.package).path(part.slot)
        return slot / part.target.part if part.target.part else slot

    def active_content(self, part: Part) -> Path:
        """The same directory by its name that no update changes: through the link to the active slot."""
        root = self.slots(part.release.package).active_path
        return root / part.target.part if part.target.part else root

    def backup(self, part: PartId, files: SystemFiles | None = None) -> Backup:
        """What is kept of the system for the way back from this part; `files` reach what root alone should not."""
        name = check_id(part.part, "part") if part.part else "-"
        place = self.state_dir / "backup" / check_id(part.package, "package") / f"{part.kind}.{name}"
        return Backup(files or SystemFiles(self.system_root), place)

    @property
    def cache(self) -> Path:
        """Where downloaded artifacts are, by digest."""
        return self.state_dir / "cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One look at a release on probation. `code` is None where it is well."""

    code: str | None
    detail: str = ""


class Installer(Protocol):
    """One kind of release. Errors are InstallErrors, or OSErrors of the disk."""

    kind: Kind

    def stage(self, part: Part, *, irreversible: bool) -> None:
        """Refuse what can never be activated here, or could not be undone, unless that is accepted.

        The slot holds the content; nothing is active yet, and nothing outside the slot changes.
        """

    def quiet(self, part: PartId) -> None:
        """What runs of the part is stopped, and does not start by itself until it is activated or reverted."""

    def activate(self, part: Part) -> None:
        """Back up, put into place, start. The slot is active already."""

    def retire(self, part: Part) -> None:
        """Back up and take out of the system what the release that is left has of its own."""

    def check(self, part: Part) -> Verdict:
        """Ask the active part once how it is."""

    def prove_way_back(self, part: PartId) -> None:
        """What `revert` would put back is what was kept, or InstallError `altered` (attack B11). Nothing changes."""

    def commit(self, part: PartId) -> None:
        """Drop what only `revert` would have needed."""

    def revert(self, part: PartId, back: Part | None) -> None:
        """Undo what `activate` or `retire` did of this part; then run `back`, the previous release's, if it had one.

        The slot that `back` names is active already, or none is.
        """
