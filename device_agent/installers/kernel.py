"""The kernel that runs: which modules it has loaded, in which build, and how they are loaded and unloaded."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from device_agent.installers.crash import crash_point
from device_agent.installers.programs import Programs
from device_agent.installers.system_files import SystemFiles
from fleet_protocol.errors import InstallError
from fleet_protocol.module_file import ModuleFile

_LOAD_S: Final = 120.0
_UNLOAD_S: Final = 60.0
_PATIENCE_S: Final = 2.0
"""How long a module may still be in use by what has just been stopped, or by udev, which looks at what is new."""
_PAUSE_S: Final = 0.2
_BROKEN: Final = 1 << 5 | 1 << 7 | 1 << 14
"""Bits of /proc/sys/kernel/tainted: a bad page, an oops, a soft lockup (admin-guide/tainted-kernels.rst)."""
_LOG_LINES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What tells two builds of a module apart; None where it says nothing."""

    srcversion: str | None
    version: str | None
    build_id: str | None

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Build":
        """What `to_json` gave."""
        return cls(srcversion=value["srcversion"], version=value["version"], build_id=value["build_id"])

    @classmethod
    def of(cls, file: ModuleFile) -> "Build":
        """What the file would show once it is loaded."""
        return cls(srcversion=file.srcversion, version=file.version, build_id=file.build_id)

    def __str__(self) -> str:
        parts = (("version", self.version), ("srcversion", self.srcversion), ("build", (self.build_id or "")[-16:]))
        return ", ".join(f"{name} {value}" for name, value in parts if value) or "a build that says nothing of itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A module that is loaded, as /sys/module shows it."""

    build: Build
    refcnt: int
    holders: tuple[str, ...]
    """Other modules that use it."""

    def is_of(self, wanted: Build) -> bool:
        """Whether it is this build, and not only one that does not contradict it.

        A kernel without kallsyms shows no build id; then the rest must tell.
        """
        found = self.build
        if (found.srcversion, found.version) != (wanted.srcversion, wanted.version):
            return False
        if found.build_id is None:
            return found.srcversion is not None or found.version is not None
        return found.build_id == wanted.build_id


class Kernel:
    """Reads /sys and /proc, runs modprobe and rmmod."""

    def __init__(self, files: SystemFiles, programs: Programs) -> None:
        self._files, self._programs = files, programs

    @property
    def release(self) -> str:
        """As `uname -r` prints it."""
        return self._line("/proc/sys/kernel/osrelease") or ""

    @property
    def boot(self) -> str:
        """The kernel's random name of this boot."""
        return self._line("/proc/sys/kernel/random/boot_id") or ""

    @property
    def broken(self) -> int:
        """Nonzero once something in the kernel has gone wrong beyond repair, by what it was."""
        return int(self._line("/proc/sys/kernel/tainted") or 0) & _BROKEN

    @property
    def wants_signatures(self) -> bool:
        """Whether it loads signed modules only."""
        return self._line("/sys/module/module/parameters/sig_enforce") == "Y"

    def loaded(self, module: str) -> Loaded | None:
        """The module as it is now; None where it is not loaded, or is a part of the kernel."""
        place = f"/sys/module/{module}"
        if self._line(f"{place}/initstate") is None:
            return None
        note = self._files.read(f"{place}/notes/.note.gnu.build-id")
        holders = self._files.place(f"{place}/holders")
        return Loaded(
            build=Build(
                srcversion=self._line(f"{place}/srcversion"),
                version=self._line(f"{place}/version"),
                build_id=None if note is None else note.hex(),
            ),
            refcnt=int(self._line(f"{place}/refcnt") or 0),
            holders=tuple(sorted(path.name for path in holders.iterdir())) if holders.is_dir() else (),
        )

    def load(self, module: str) -> None:
        """Load it and what it depends on, as modprobe.d says. Raises InstallError `start`; one that is loaded stays."""
        crash_point("driver.before_load")
        ran = self._programs.run("modprobe", module, timeout_s=_LOAD_S)
        if ran.status != 0 or self.loaded(module) is None:
            said = ran.last_words if ran.status != 0 else "modprobe has not loaded it: modprobe.d may say so"
            raise InstallError("start", " | ".join([f"{module}: {said}", *self._last_messages()])[:1_000])
        crash_point("driver.after_load")

    def unload(self, module: str, ours: Collection[str]) -> None:
        """Unload it, and those of `ours` that use it before it; nothing else, not even what it depends on.

        Raises InstallError `in-use`.
        """
        found = self.loaded(module)
        for holder in found.holders if found is not None else ():
            if holder in ours and holder != module:
                self.unload(holder, [other for other in ours if other != module])
        until_s = time.monotonic() + _PATIENCE_S
        while self.loaded(module) is not None:
            crash_point("driver.before_unload")
            ran = self._programs.run("rmmod", module, timeout_s=_UNLOAD_S)
            crash_point("driver.after_unload")
            if self.loaded(module) is None:
                return
            if time.monotonic() >= until_s:
                raise InstallError("in-use", f"{module} can not be unloaded: {ran.last_words}")
            time.sleep(_PAUSE_S)

    def asks_for(self, aliases: Iterable[str]) -> bool:
        """Whether a device that is there names one of these in its modalias."""
        patterns = [alias for alias in aliases if ":" in alias]
        return any(fnmatchcase(device, pattern) for device in self._modaliases() for pattern in patterns)

    def _modaliases(self) -> Iterator[str]:
        for path in sorted(self._files.place("/sys/bus").glob("*/devices/*/modalias")):
            try:
                yield path.read_text("utf-8", "replace").strip()
            except OSError:  # the device has gone
                continue

    def _last_messages(self) -> list[str]:
        """The end of the kernel's log, where it may be read."""
        if not self._programs.has("dmesg"):
            return []
        ran = self._programs.run("dmesg", timeout_s=_UNLOAD_S)
        return [line.strip() for line in ran.output.splitlines()][-_LOG_LINES:] if ran.status == 0 else []

    def _line(self, path: str) -> str | None:
        data = self._files.read(path)
        return None if data is None else data.decode("utf-8", "replace").removesuffix("\n")
