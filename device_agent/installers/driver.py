"""Kernel modules: unload the old ones, put the new ones below /lib/modules, load them, look what is loaded.

1. Nothing is taken out, put in or loaded again where the right module is loaded out of the right file.
2. From `quiet` on the boot and udev load none of the package's modules; that ends once they have run for a while, with
   the commit or with the way back. So no boot is spent on a module that takes the device down when it is loaded; the
   installer tries twice, for the first time may have been the power.
3. The files of all drivers of a release are in place before any of them is loaded: modprobe knows the order.
4. Only modules of the package are unloaded, and those first that use the others.
"""

import time
from dataclasses import dataclass
from typing import Final

from device_agent.core.plan import PlannedRelease
from device_agent.installers.crash import crash_point
from device_agent.installers.driver_attempt import DriverAttempt
from device_agent.installers.driver_config import is_blacklisted, load_list
from device_agent.installers.driver_content import DriverContent
from device_agent.installers.driver_fit import check_fits, check_replaceable
from device_agent.installers.kernel import Build, Kernel
from device_agent.installers.module_tree import ModuleTree, installed_releases, release_of
from device_agent.installers.port import Device, Part, PartId, Verdict
from device_agent.installers.programs import PATH
from device_agent.installers.slots import SlotName
from device_agent.installers.system_files import SystemFiles
from fleet_protocol.catalogue import Kind
from fleet_protocol.errors import InstallError
from fleet_protocol.install import Driver
from fleet_protocol.module_file import ModuleFile

_PROVEN_S: Final = 60.0
"""How long a module must have been loaded before the boot may load it: longer than the agent takes to come up."""


@dataclass(frozen=True, slots=True)
class _Target:
    """One driver of a release, in its slot."""

    part: PartId
    driver: Driver
    content: DriverContent
    file: ModuleFile
    """The one for the kernel that runs."""

    @property
    def module(self) -> str:
        return self.driver.module

    @property
    def build(self) -> Build:
        return Build.of(self.file)


class DriverInstaller:
    """Kind `driver`. All drivers of a package are activated, committed and reverted by the first that is asked to."""

    kind: Kind = "driver"

    def __init__(self, device: Device) -> None:
        self._device = device
        self._files = SystemFiles(device.system_root)
        self._kernel = Kernel(self._files, device.programs)

    def stage(self, part: Part, *, irreversible: bool) -> None:
        """It fits the kernel that runs, is well formed for others that are here, and could be replaced now."""
        target = self._target(part)
        for release in sorted(installed_releases(self._files) & set(target.driver.kernels)):
            target.content.read(release, target.module)
        ours = {other.module for other in self._targets(part.release, part.slot)}
        check_fits(target.file, self._tree(self._kernel.release), self._kernel, ours)
        self._check_allowed(target)
        services = any(other.kind == "service" for other in part.release.targets)
        check_replaceable(target.file, self._kernel, ours, has_services=services, irreversible=irreversible)

    def quiet(self, part: PartId) -> None:
        """Banned (rule 2). What is loaded stays until it is replaced: by itself a module starts nothing."""
        self._attempt(part.package).begin()

    def activate(self, part: Part) -> None:
        """Raises InstallError `in-use`, `start` where a module is not loaded, `altered` where another one is."""
        targets = self._targets(part.release, part.slot)
        if part.id != targets[0].part:
            return  # done with the first
        attempt = self._attempt(part.release.package)
        attempt.begin()
        for target in targets:
            self._check_allowed(target)
        gone = sorted(set(attempt.before) - {target.module for target in targets})
        for target in targets:
            self._put(attempt, target)
        for module in gone:
            self._withdraw(attempt, module)
        due = [target for target in targets if self._is_due(target, attempt)]
        self._index(attempt, also_running=not all(self._is_right(target) for target in due))
        self._load(targets, gone, due, attempt)

    def retire(self, part: Part) -> None:
        """Its modules are neither loaded nor below /lib/modules."""
        attempt = self._attempt(part.release.package)
        attempt.begin()
        self._set_load_list(attempt, part.id, None)
        modules = attempt.content(part.id, part.slot).modules(installed_releases(self._files))
        for module in sorted(modules):
            self._withdraw(attempt, module)
        self._index(attempt, also_running=False)
        for module in sorted(modules):
            self._kernel.unload(module, attempt.before)

    def check(self, part: Part) -> Verdict:
        """`crashed` where the kernel broke since, or the module can not be loaded again after a boot."""
        target, attempt = self._target(part), self._attempt(part.release.package)
        if self._kernel.broken & ~attempt.broken_before:
            return Verdict(code="crashed", detail="the kernel has had an oops, a bad page or a lockup since")
        if attempt.under_way and self._kernel.loaded(target.module) is None and self._is_due(target, attempt):
            try:
                self._bring(attempt, target.module)
            except InstallError as error:
                return Verdict(code="crashed", detail=error.detail[:300])
        loaded = self._kernel.loaded(target.module)
        if loaded is not None and not loaded.is_of(target.build):
            return Verdict(code="unhealthy", detail=f"{target.module} is loaded in another build: {loaded.build}")
        self._lift_when_proven(attempt)
        check = part.target.install.check
        if check is None:
            return Verdict(code=None)
        from device_agent.installers.health import run_check  # noqa: PLC0415 - no other operation needs HTTP

        environment = {"PATH": PATH, "LANG": "C.UTF-8", **self._device.variables}
        return run_check(check, self._device.content(part), environment, self._device.variables)

    def prove_way_back(self, part: PartId) -> None:
        """The files of all drivers of the package."""
        self._attempt(part.package).backup.prove()

    def commit(self, part: PartId) -> None:
        """The boot may load the modules; what a power cut kept from being loaded is loaded now.

        Raises InstallError `start` where that fails, once all the same is committed.
        """
        attempt = self._attempt(part.package)
        attempt.ban.lift()
        crash_point("driver.after_lift")
        try:
            if attempt.under_way:
                self._load_committed(attempt)
        finally:
            attempt.backup.drop()

    def revert(self, part: PartId, back: Part | None) -> None:
        """The files as they were, and loaded what was loaded, whoever had put it there."""
        attempt = self._attempt(part.package)
        if attempt.under_way:
            attempt.backup.restore()
            attempt.ban.lift()
            crash_point("driver.after_lift")
            self._index(attempt, also_running=False)
            self._load_as_before(attempt)
        attempt.backup.drop()

    def _put(self, attempt: DriverAttempt, target: _Target) -> None:
        """Its files stand where depmod looks first, alone; those of kernels that it is not for any more are gone."""
        self._set_load_list(attempt, target.part, f"{target.module}\n" if target.driver.load else None)
        for release in sorted(installed_releases(self._files)):
            tree = self._tree(release)
            if release in target.driver.kernels:
                others = [path for path in tree.files_of(target.module) if path != tree.place(target.module)]
                self._set_file(attempt, tree.place(target.module), target.content.data(release, target.module))
                for path in others:
                    self._set_file(attempt, path, None)
            elif attempt.brings(release, target.module):
                self._set_file(attempt, tree.place(target.module), None)

    def _withdraw(self, attempt: DriverAttempt, module: str) -> None:
        for release in sorted(installed_releases(self._files)):
            if attempt.brings(release, module):
                self._set_file(attempt, self._tree(release).place(module), None)

    def _set_load_list(self, attempt: DriverAttempt, part: PartId, text: str | None) -> None:
        self._set_file(attempt, load_list(part), None if text is None else text.encode())

    def _set_file(self, attempt: DriverAttempt, path: str, data: bytes | None) -> None:
        """Exactly `data` stands there, or nothing; what stood there is kept first."""
        if self._files.read(path) == data:
            return
        attempt.backup.keep(path)
        crash_point("driver.before_file")
        if data is None:
            self._files.remove(path)
        else:
            self._files.write(path, data)
        crash_point("driver.after_file")

    def _index(self, attempt: DriverAttempt, *, also_running: bool) -> None:
        """depmod, for each kernel of which the attempt has changed a file: a kill may have come before it."""
        releases = {release for path in attempt.backup.paths if (release := release_of(path)) is not None}
        for release in sorted(releases | ({self._kernel.release} if also_running else set())):
            self._tree(release).index()

    def _load(self, targets: list[_Target], gone: list[str], due: list[_Target], attempt: DriverAttempt) -> None:
        ours = {*attempt.before, *(target.module for target in targets)}
        for module in gone:
            self._kernel.unload(module, ours)
        for target in targets:
            if self._kernel.loaded(target.module) is not None and not self._is_right(target):
                self._kernel.unload(target.module, ours)
        for target in due:
            if self._kernel.loaded(target.module) is None:  # another may have brought it along
                self._bring(attempt, target.module)
        for target in targets:
            loaded = self._kernel.loaded(target.module)
            if loaded is not None and not loaded.is_of(target.build):
                raise InstallError("altered", f"{target.module}: loaded is {loaded.build}, installed {target.build}")
        if due and attempt.ban.loaded_s is None:
            self._end_load(attempt)

    def _load_committed(self, attempt: DriverAttempt) -> None:
        slot = self._device.slots(attempt.package).active()
        for part in attempt.parts():
            if slot is None:
                continue
            content = attempt.content(part, slot)
            for module in sorted(content.modules([self._kernel.release])):
                file = content.read(self._kernel.release, module)
                if self._kernel.loaded(module) is None and self._is_wanted(part, file, attempt):
                    self._kernel.load(module)

    def _load_as_before(self, attempt: DriverAttempt) -> None:
        for module, build in attempt.before.items():
            loaded = self._kernel.loaded(module)
            if loaded is not None and (build is None or not loaded.is_of(build)):
                self._kernel.unload(module, attempt.before)
        for module, build in attempt.before.items():
            if build is not None and self._kernel.loaded(module) is None:
                self._kernel.load(module)

    def _bring(self, attempt: DriverAttempt, module: str) -> None:
        """Load it, while the disk says that this may be the device's end."""
        attempt.begin()
        attempt.ban.begin_load(self._kernel.boot)
        self._kernel.load(module)
        self._end_load(attempt)

    def _end_load(self, attempt: DriverAttempt) -> None:
        attempt.ban.end_load(time.clock_gettime(time.CLOCK_BOOTTIME))
        crash_point("driver.after_stamp")

    def _lift_when_proven(self, attempt: DriverAttempt) -> None:
        """A boot sets the clock back, but what was loaded before it is not loaded after it, and is stamped anew."""
        since_s = attempt.ban.loaded_s
        if since_s is not None and time.clock_gettime(time.CLOCK_BOOTTIME) - since_s >= _PROVEN_S:
            attempt.ban.lift()

    def _is_due(self, target: _Target, attempt: DriverAttempt) -> bool:
        return self._is_wanted(target.part, target.file, attempt)

    def _is_wanted(self, part: PartId, file: ModuleFile, attempt: DriverAttempt) -> bool:
        """At every boot, because it was before, or because a device asks for it."""
        if self._files.read(load_list(part)) is not None or attempt.before.get(file.name) is not None:
            return True
        return self._kernel.asks_for(file.aliases) and not is_blacklisted(self._files, file.name)

    def _is_right(self, target: _Target) -> bool:
        loaded = self._kernel.loaded(target.module)
        return loaded is not None and loaded.is_of(target.build)

    def _check_allowed(self, target: _Target) -> None:
        if target.driver.load and is_blacklisted(self._files, target.module):
            raise InstallError("masked", f"the owner of this device has blacklisted {target.module}")

    def _targets(self, release: PlannedRelease, slot: SlotName) -> list[_Target]:
        parts = (Part(release=release, target=target, slot=slot) for target in release.targets)
        return [self._target(part) for part in parts if part.target.kind == self.kind]

    def _target(self, part: Part) -> _Target:
        """InstallError `unsupported` or `kernel` for what can not be a driver here."""
        driver, running = part.target.install.driver, self._kernel.release
        if driver is None:
            raise InstallError("unsupported", f"{part.id.name} names no module")
        if running not in driver.kernels:
            raise InstallError("kernel", f"{driver.module} is not built for {running or 'this kernel'}")
        content = DriverContent(self._device.content(part))
        return _Target(part.id, driver, content, content.read(running, driver.module))

    def _tree(self, release: str) -> ModuleTree:
        return ModuleTree(self._files, self._device.programs, release)

    def _attempt(self, package: str) -> DriverAttempt:
        return DriverAttempt(self._device, package, self._kernel)
