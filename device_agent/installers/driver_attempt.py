"""What an attempt knows of a package's drivers: how all of them were before, and what of the system was kept.

All driver parts of a package are one: they depend on each other, and a module may move from one part to another. So
they share one backup and one ban.
"""

from collections.abc import Mapping

from device_agent.installers.attempt_note import AttemptNote
from device_agent.installers.backup import Backup
from device_agent.installers.crash import crash_point
from device_agent.installers.driver_config import Ban
from device_agent.installers.driver_content import DriverContent
from device_agent.installers.kernel import Build, Kernel
from device_agent.installers.module_tree import installed_releases
from device_agent.installers.port import Device, PartId
from device_agent.installers.slots import SlotName
from device_agent.installers.system_files import SystemFiles


class DriverAttempt:
    """One package's drivers, from the moment they are quiet until the commit or the way back."""

    def __init__(self, device: Device, package: str, kernel: Kernel) -> None:
        self._device, self.package, self._kernel = device, package, kernel
        self._files = SystemFiles(device.system_root)
        self.backup: Backup = device.backup(PartId(package=package, part="", kind="driver"))
        self.ban = Ban(self._files, package)

    def begin(self) -> None:
        """How the modules were is written down, and none of them is loaded by the next boot. Again is nothing."""
        if self.backup.facts is None:
            loaded = {name: self._kernel.loaded(name) for name in sorted(self._names())}
            modules = {name: None if found is None else found.build.to_json() for name, found in loaded.items()}
            refcnt = {name: found.refcnt for name, found in loaded.items() if found is not None}
            self.backup.note({"modules": modules, "refcnt": refcnt, "broken": self._kernel.broken})
        self.ban.impose(self.before)
        crash_point("driver.after_ban")

    @property
    def under_way(self) -> bool:
        """Whether there is anything to commit or to go back from."""
        return self.backup.facts is not None

    @property
    def before(self) -> Mapping[str, Build | None]:
        """Every module of both slots, and in which build it was loaded before the attempt, if it was."""
        modules = (self.backup.facts or {}).get("modules", {})
        return {name: None if build is None else Build.from_json(build) for name, build in modules.items()}

    @property
    def broken_before(self) -> int:
        """`Kernel.broken` before the attempt."""
        return int((self.backup.facts or {}).get("broken", 0))

    def parts(self) -> tuple[PartId, ...]:
        """The driver parts of both releases."""
        noted = AttemptNote(self._device.state_dir, self.package).read()
        return tuple(part for part in noted if part.kind == "driver")

    def content(self, part: PartId, slot: SlotName) -> DriverContent:
        """What the part has in a slot."""
        place = self._device.slots(self.package).path(slot)
        return DriverContent(place / part.part if part.part else place)

    def brings(self, release: str, module: str) -> bool:
        """Whether one of the two releases has the module for this kernel."""
        return any(content.has(release, module) for content in self._contents())

    def _names(self) -> frozenset[str]:
        releases = installed_releases(self._files)
        return frozenset[str]().union(*(content.modules(releases) for content in self._contents()))

    def _contents(self) -> list[DriverContent]:
        slots: tuple[SlotName, SlotName] = ("a", "b")
        return [self.content(part, slot) for part in self.parts() for slot in slots]
