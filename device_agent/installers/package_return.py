"""The way back: packages become what they were before the attempt, from whatever half state they are in.

1. The facts alone say what to do. Each step looks at the database first, so that a way back that was cut short goes on.
2. Configuration files are put back before dpkg runs, so that it finds them as it knows them, and once more after.
3. What was installed comes back from its .deb, at any price in versions. What was not there is purged; a package that
   something else needs by now stays.
4. What is half unpacked is unpacked before it is left: only then dpkg knows all its files.
5. A release's own scripts can not keep the device from leaving it: where they fail, they are replaced by ones that do
   nothing.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from device_agent.adapters.files import write_atomic
from device_agent.installers.apt import Apt
from device_agent.installers.backup import Backup
from device_agent.installers.conffiles import beside
from device_agent.installers.crash import crash_point
from device_agent.installers.debian_world import DebianWorld, problems
from device_agent.installers.dpkg import Dpkg, Entry, blame
from device_agent.installers.package_change import wants
from device_agent.installers.package_was import Was, at
from device_agent.installers.programs import Ran
from device_agent.installers.slot_debs import digest
from device_agent.installers.system_files import SystemFiles
from fleet_protocol.errors import InstallError

_ANY_ORDER: Final = ("--force-downgrade", "--force-depends", "--force-breaks", "--force-conflicts")
"""The set that comes back went together before; only on the way there it may not."""
_SILENT: Final = b"#!/bin/sh\nexit 0\n"


class PackageReturn:
    """Of one part, on one system. Whoever uses it holds dpkg's lock."""

    def __init__(self, state_dir: Path, root: Path, dpkg: Dpkg, apt: Apt, backup: Backup) -> None:
        self._state_dir, self._root, self._dpkg, self._apt, self._backup = state_dir, root, dpkg, apt, backup

    def undo(self, was: Sequence[Was]) -> None:
        """Raises InstallError `start` with the last words of what failed, or `altered` for a .deb that is not whole."""
        debs = {one: self._deb(one) for one in was if one.deb is not None}
        crash_point("package.before_return")
        self._backup.restore()
        ran = self._go_back(was, debs)
        if self._wrong(was):
            self._backup.restore()
            ran = self._go_back(was, debs, silent=True)
        self._backup.restore()
        self._sweep()
        crash_point("package.after_sweep")
        wrong = self._wrong(was)
        if wrong:
            raise blame(ran, f"{', '.join(one.name for one in wrong)} not as before")
        self._dpkg.select(wants(was, self._dpkg.entries()))
        crash_point("package.after_return")

    def _deb(self, was: Was) -> Path:
        path = self._state_dir / str(was.deb)
        if not path.is_file() or digest(path) != was.sha256:
            raise InstallError("altered", f"the way back to {was.name} {was.version} is not what was kept")
        return path

    def _go_back(self, was: Sequence[Was], debs: dict[Was, Path], *, silent: bool = False) -> Ran:
        """Rules 3 to 5. Returns how the last command ended that had something to do."""
        ran = Ran(0, "")
        wrong = self._wrong(was)
        self._unmark(wrong)
        self._unpack(wrong)
        if silent:
            self._silence(wrong)
        paths = [debs[one] for one in wrong if one in debs]
        if paths:
            crash_point("package.before_reinstall")
            ran = self._dpkg.install(paths, *_ANY_ORDER)
            crash_point("package.after_reinstall")
        gone = [one for one in self._wrong(was) if one.version is None]
        for keep, specs in (
            (True, [o.spec for o in gone if o.config_files]),
            (False, [o.spec for o in gone if not o.config_files]),
        ):
            if specs:
                crash_point("package.before_purge")
                ran = self._dpkg.remove(specs) if keep else self._dpkg.purge(specs)
                crash_point("package.after_purge")
        self._dpkg.finish_pending()
        return ran

    def _unpack(self, wrong: Iterable[Was]) -> None:
        """Rule 4; what can not be unpacked is left as it is."""
        entries = self._dpkg.entries()
        half = {e.control.name for e in entries if e.broken or e.status == "half-installed"}
        found = [(self._state_dir / one.coming, one.coming_sha256) for one in wrong if one.coming and one.name in half]
        paths = [path for path, sha256 in found if path.is_file() and digest(path) == sha256]
        if paths:
            crash_point("package.before_unpack")
            self._dpkg.unpack(paths, *_ANY_ORDER)
            crash_point("package.after_unpack")

    def _wrong(self, was: Sequence[Was]) -> list[Was]:
        """What is not as it was, and can be."""
        entries = self._dpkg.entries()
        found = [one for one in was if not one.lost and not one.is_so(entries)]
        return [one for one in found if one.version is not None or not self._is_needed(one, was, entries)]

    def _is_needed(self, one: Was, was: Iterable[Was], entries: Sequence[Entry]) -> bool:
        """Whether something that stays needs the package, which works: the owner's, or what has no way back."""
        entry = at(entries, one.name, one.architecture)
        if entry is None or not entry.whole:
            return False
        ours = {(other.name, other.architecture) for other in was if not other.lost}
        others = [e.control for e in entries if e.present and (e.control.name, e.control.architecture) not in ours]
        native = self._dpkg.architectures()[0]
        return any(problems(DebianWorld([*others, entry.control], native), DebianWorld(others, native)))

    def _unmark(self, wrong: Iterable[Was]) -> None:
        """apt keeps the marks of packages that are gone: what is purged must not come back with one."""
        entries = self._dpkg.entries()
        there = [one for one in wrong if one.version is None and one.role == "dependency"]
        present = [
            o.spec for o in there if (entry := at(entries, o.name, o.architecture)) is not None and entry.present
        ]
        self._apt.mark(present, automatic=False)

    def _silence(self, wrong: Iterable[Was]) -> None:
        """Rule 5. The scripts are those in the database; a package that comes back brings its own again."""
        entries = self._dpkg.entries()
        for one in wrong:
            for entry in (e for e in entries if e.control.name == one.name):
                for name, path in self._dpkg.control_files(entry.control.spec).items():
                    if name in ("prerm", "postrm"):
                        write_atomic(path, _SILENT, mode=0o755)
                        crash_point("package.after_silence")

    def _sweep(self) -> None:
        """What dpkg left beside configuration files, and nobody had before."""
        system, kept = SystemFiles(self._root), self._backup.paths
        for path in kept:
            for left in beside(self._root, path):
                if left not in kept:
                    system.remove(left)
