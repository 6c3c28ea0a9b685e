"""Debian packages: what a release names is installed at exactly its version, and nothing else changes.

1. While a release is staged nothing of the system changes, and whatever would keep it from being installed, or from
   being undone, is found.
2. What a release brought and no release names any more is taken out, unless something needs it by now. What was there
   before a release named it is the owner's, and stays.
3. Facts belong to the attempt that led to one slot. Those of an attempt before are settled, never undone.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from device_agent.installers.apt import Apt
from device_agent.installers.brought import Brought, Name
from device_agent.installers.crash import crash_point
from device_agent.installers.dpkg import Dpkg, Entry
from device_agent.installers.dpkg_lock import frontend_lock
from device_agent.installers.package_change import PackageChange
from device_agent.installers.package_return import PackageReturn
from device_agent.installers.package_set import Coming, PackageSet, check_space
from device_agent.installers.package_was import Was, at, from_facts, instance
from device_agent.installers.port import Device, Part, PartId, Verdict
from device_agent.installers.programs import PATH
from device_agent.installers.slot_debs import SlotDebs, digest
from device_agent.installers.slots import SlotName
from device_agent.installers.way_back import WayBack
from fleet_protocol.catalogue import Kind
from fleet_protocol.errors import InstallError

LOCK_WAIT_S: Final = 60.0
"""How long others may go on with packages before the attempt is given up, to be tried again later."""


class PackageInstaller:
    """Kind `package`."""

    kind: Kind = "package"

    def __init__(self, device: Device) -> None:
        self._device, self._root = device, device.system_root
        self._dpkg = Dpkg(device.system_root, device.programs)

    def stage(self, part: Part, *, irreversible: bool) -> None:
        """Rule 1. Raises InstallError `dependencies`, `no-way-back`, `locked`, `no-space` or `unsupported`."""
        self._dpkg.check()
        self.commit(part.id)
        kept = self._kept(part.id, part.slot)
        apt = self._apt(kept.scratch)
        try:
            with frontend_lock(self._root, LOCK_WAIT_S):
                entries = self._dpkg.entries()
            brings = self._brings(part)
            brings.take_downloads(self._device.cache)
            leaving = [entry.control for entry in self._leaving(part, brings.named(), entries)]
            coming = brings.complete(entries, leaving, apt)
            check_space(self._root, coming, entries)
            kept.demand_way_back(demanded=not irreversible)
            lost = list(self._lost(part, coming, entries, apt))
            if lost and not irreversible:
                raise _no_way_back(lost)
        finally:
            apt.close()

    def quiet(self, part: PartId) -> None:
        """Nothing is stopped: that is for the packages' own scripts."""

    def prove_way_back(self, part: PartId) -> None:
        """Every .deb that goes back, and the configuration files."""
        backup = self._device.backup(part)
        facts = backup.facts
        if facts is None or facts["slot"] != self._device.slots(part.package).active():
            return
        for was in from_facts(facts):
            path = self._device.state_dir / str(was.deb)
            if was.deb is not None and (not path.is_file() or digest(path) != was.sha256):
                raise InstallError("altered", f"the way back to {was.name} {was.version} is not what was kept")
        backup.prove()

    def activate(self, part: Part) -> None:
        """Raises InstallError `start` with the last words of the script that failed, or `locked`."""
        brings = self._brings(part)
        self._change(part, [*brings.named(), *brings.dependencies()])

    def retire(self, part: Part) -> None:
        """Rule 2, for all that the part brought."""
        self._change(part, [])

    def check(self, part: Part) -> Verdict:
        """`unhealthy` unless every package is installed at its version; then what the signed check says."""
        entries = self._dpkg.entries()
        for package in part.target.install.packages:
            found = at(entries, package.name, package.architecture)
            if found is None or not found.whole or found.control.version != package.version:
                state = "not there" if found is None else f"{found.status} at {found.control.version or 'no version'}"
                return Verdict(code="unhealthy", detail=f"{package.name} is {state}, not at {package.version}")
        check = part.target.install.check
        if check is None:
            return Verdict(code=None)
        from device_agent.installers.health import run_check  # noqa: PLC0415 - no other operation needs HTTP

        environment = {"PATH": PATH, "LANG": "C.UTF-8", **self._device.variables}
        return run_check(check, self._device.content(part), environment, self._device.variables)

    def commit(self, part: PartId) -> None:
        """What the attempt brought is written down, and what it replaced is dropped."""
        backup = self._device.backup(part)
        facts, active = backup.facts, self._device.slots(part.package).active()
        if facts is not None:
            self._write_brought(part, from_facts(facts))
            crash_point("package.after_brought")
        backup.drop()
        if active is not None:
            self._kept(part, active).forget_way_back()
            crash_point("package.after_forget")

    def revert(self, part: PartId, back: Part | None) -> None:
        """Every package that changed is again what it was, from any half state; the facts alone say which."""
        backup = self._device.backup(part)
        facts = backup.facts
        if facts is not None and facts["slot"] == self._device.slots(part.package).active():
            self.commit(part)
            return
        if facts is not None:
            apt = self._apt(self._device.cache / "apt")
            with frontend_lock(self._root, LOCK_WAIT_S):
                PackageReturn(self._device.state_dir, self._root, self._dpkg, apt, backup).undo(from_facts(facts))
        backup.drop()

    def _change(self, part: Part, coming: Sequence[Coming]) -> None:
        apt = self._apt(self._kept(part.id, part.slot).scratch)
        change = PackageChange(self._device.state_dir, self._root, self._dpkg, apt)
        with frontend_lock(self._root, LOCK_WAIT_S):
            self._dpkg.finish_pending()
            change.make(coming, self._remembered(part, coming, change, apt))

    def _remembered(self, part: Part, coming: Sequence[Coming], change: PackageChange, apt: Apt) -> tuple[Was, ...]:
        """How things were before this attempt; rule 3."""
        backup, active = self._device.backup(part.id), self._device.slots(part.release.package).active()
        facts = backup.facts
        if facts is not None and facts["slot"] == active:
            return from_facts(facts)
        if facts is not None:
            self.commit(part.id)
        way = self._way_back(part, apt)
        was = change.as_it_is(coming, self._leaving(part, coming, self._dpkg.entries()), way)
        lost = [f"{one.name} {one.version}" for one in was if one.lost]
        if lost and not self._kept(part.id, part.slot).may_be_lost:
            raise _no_way_back(lost)
        return change.remember(was, [one.path for one in coming], active, backup)

    def _lost(self, part: Part, coming: Iterable[Coming], entries: Sequence[Entry], apt: Apt) -> Iterable[str]:
        """What is installed now and could not be brought back. What can be had only now is put by."""
        way = self._way_back(part, apt)
        for one in coming:
            now = instance(entries, one.control)
            if not one.is_there(entries) and now is not None and now.present and way.obtain(now.control) is None:
                yield str(now.control)

    def _leaving(self, part: Part, coming: Sequence[Coming], entries: Iterable[Entry]) -> list[Entry]:
        """Rule 2; what another part of the release names stays, too. Of a part that is retired nothing is coming."""
        named = {(one.control.name, one.control.architecture) for one in coming}
        targets = part.release.targets if coming else ()
        named |= {(package.name, package.architecture) for one in targets for package in one.install.packages}
        gone = Brought(self._device.state_dir, part.id).read() - named
        return [entry for entry in entries if entry.present and _name(entry) in gone]

    def _write_brought(self, part: PartId, was: Iterable[Was]) -> None:
        brought = Brought(self._device.state_dir, part)
        fresh = {(one.name, one.architecture) for one in was if one.version is None and one.role != "leaving"}
        present = {_name(entry) for entry in self._dpkg.entries() if entry.present}
        brought.write((brought.read() | fresh) & present)

    def _brings(self, part: Part) -> PackageSet:
        return PackageSet(part.target, self._device.content(part), self._kept(part.id, part.slot), self._dpkg)

    def _kept(self, part: PartId, slot: SlotName) -> SlotDebs:
        return SlotDebs(self._device.slots(part.package).debs(slot) / (part.part or "-"))

    def _way_back(self, part: Part, apt: Apt) -> WayBack:
        slots: Path = self._device.slots(part.release.package).path(part.slot).parent
        return WayBack(self._root, slots, self._kept(part.id, part.slot).back, self._dpkg, apt)

    def _apt(self, place: Path) -> Apt:
        return Apt(self._root, self._device.programs, place)


def _name(entry: Entry) -> Name:
    return entry.control.name, entry.control.architecture


def _no_way_back(lost: Iterable[str]) -> InstallError:
    found = ", ".join(lost)
    return InstallError("no-way-back", f"{found}: installed, and its .deb can neither be found nor made again"[:400])
