"""The way forward: packages become what a release says, and how they were is written down before.

1. Before the first change, all that the way back needs is on the disk: facts, configuration files, .debs.
2. dpkg installs, whatever half state it finds; the database is asked afterwards, never its exit status.
3. What is held stays held, and what only others need is marked so.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from device_agent.installers.apt import Apt, is_automatic
from device_agent.installers.backup import Backup
from device_agent.installers.conffiles import watched
from device_agent.installers.crash import crash_point
from device_agent.installers.debian_control import Control
from device_agent.installers.debian_world import batches
from device_agent.installers.dpkg import Dpkg, Entry, blame
from device_agent.installers.package_set import Coming
from device_agent.installers.package_was import Role, Was, at, from_facts, instance, to_facts
from device_agent.installers.slot_debs import digest
from device_agent.installers.way_back import WayBack


class PackageChange:
    """Of one part, on one system. Whoever uses it holds dpkg's lock."""

    def __init__(self, state_dir: Path, root: Path, dpkg: Dpkg, apt: Apt) -> None:
        self._state_dir, self._root, self._dpkg, self._apt = state_dir, root, dpkg, apt

    def as_it_is(self, coming: Iterable[Coming], leaving: Iterable[Entry], way: WayBack) -> list[Was]:
        """How everything is that will change; without a network."""
        entries = self._dpkg.entries()
        marked, native = self._apt.automatic(), self._dpkg.architectures()[0]

        def was(control: Control, role: Role, entry: Entry | None, deb: Path | None) -> Was:
            config_files = entry is not None and entry.status == "config-files"
            new, new_sha256 = self._named(deb)
            if entry is None or config_files or not entry.control.version:
                return Was(
                    name=control.name,
                    architecture=control.architecture,
                    role=role,
                    config_files=config_files,
                    coming=new,
                    coming_sha256=new_sha256,
                )
            there = entry.control
            old, old_sha256 = self._named(way.find(there))
            return Was(
                name=there.name,
                architecture=there.architecture,
                role=role,
                version=there.version,
                whole=entry.whole,
                want=entry.want,
                automatic=is_automatic(marked, there.name, there.architecture, native),
                deb=old,
                sha256=old_sha256,
                coming=new,
                coming_sha256=new_sha256,
            )

        changing = (one for one in coming if not one.is_there(entries))
        return [
            *(was(one.control, one.role, instance(entries, one.control), one.path) for one in changing),
            *(was(entry.control, "leaving", entry, None) for entry in leaving),
        ]

    def _named(self, deb: Path | None) -> tuple[str | None, str]:
        return (None, "") if deb is None else (str(deb.relative_to(self._state_dir)), digest(deb))

    def remember(self, was: Sequence[Was], debs: Iterable[Path], slot: str | None, backup: Backup) -> tuple[Was, ...]:
        """Rule 1: the first call in an attempt decides what its way back leads to."""
        specs = [one.spec for one in was if one.version is not None or one.config_files]
        backup.keep(*watched(self._root, self._dpkg, specs, debs))
        return from_facts(backup.note({**to_facts(was), "slot": slot}))

    def make(self, coming: Sequence[Coming], was: Sequence[Was]) -> None:
        """Rules 2 and 3. Raises InstallError with the last words of what failed."""
        leaving = {one.spec: "deinstall" for one in was if one.role == "leaving"}
        self._dpkg.select(leaving)
        self._install(coming)
        if any(at(self._dpkg.entries(), one.name, one.architecture) for one in was if one.role == "leaving"):
            crash_point("package.before_remove")
            self._dpkg.remove(leaving)
            crash_point("package.after_remove")
        self._mark(was)

    def _install(self, coming: Sequence[Coming]) -> None:
        entries = self._dpkg.entries()
        todo = {one.control: one.path for one in coming if not one.is_there(entries)}
        for batch in batches(todo):
            crash_point("package.before_install")
            ran = self._dpkg.install([todo[control] for control in batch])
            crash_point("package.after_install")
            self._dpkg.finish_pending()
            entries = self._dpkg.entries()
            missing = [one.control for one in coming if one.control in batch and not one.is_there(entries)]
            if missing:
                raise blame(ran, f"{', '.join(map(str, missing))} not installed")

    def _mark(self, was: Iterable[Was]) -> None:
        entries = self._dpkg.entries()
        crash_point("package.before_mark")
        self._dpkg.select(wants(was, entries))
        fresh = [one.spec for one in was if one.role == "dependency" and one.version is None]
        self._apt.mark(fresh, automatic=True)
        crash_point("package.after_mark")


def wants(was: Iterable[Was], entries: Sequence[Entry]) -> dict[str, str]:
    """The selections that are not what they were, of packages that are still there."""
    found = {}
    for one in was:
        now = instance(entries, Control(name=one.name, version="", architecture=one.architecture))
        if one.version is not None and now is not None and now.present and now.want != one.want:
            found[now.control.spec] = one.want
    return found
