"""Which modules are loaded by themselves: modprobe.d(5) and modules-load.d(5), the owner's part and ours."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from device_agent.installers.port import PartId
from device_agent.installers.system_files import SystemFiles
from fleet_protocol.errors import InstallError
from fleet_protocol.ids import check_id

_PLACES: Final = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
"""In the order in which a file hides others of its name."""
_OURS: Final = "fairlead-"
_LOADED: Final = re.compile(r"^# loaded at ([0-9]{1,12}) s$", re.MULTILINE)
_LOADING: Final = re.compile(r"^# loading in boot ([0-9a-f-]{1,64}), down ([0-9]{1,3}) times before$", re.MULTILINE)
_DOWNS: Final = 2


class Ban:
    """Keeps a package's modules from being loaded by the boot or by udev, while nobody knows what they do.

    A blacklist file: whoever loads a module by its name, as the installer does, is not kept from it. In its comments
    stands how far the installer has come.
    """

    def __init__(self, files: SystemFiles, package: str) -> None:
        self._files = files
        self._path = f"/etc/modprobe.d/{_OURS}{check_id(package, 'package')}.conf"

    def impose(self, modules: Iterable[str]) -> None:
        """Ban exactly these modules, durably. Where that is so already, nothing is forgotten."""
        if self._files.read(self._path) is None or set(modules) != self._modules():
            self._write(modules, "")

    def begin_load(self, boot: str) -> None:
        """Write down that a module is loaded in this boot: another boot that reads it knows that the device went down.

        Once that may have been the power. Raises InstallError `crashed` where it was so twice.
        """
        found = _LOADING.search(self._text())
        downs = 0 if found is None else int(found[2]) + (found[1] != boot)
        if downs >= _DOWNS:
            raise InstallError("crashed", f"the device went down {downs} times while its modules were being loaded")
        self._write(self._modules(), f"# loading in boot {boot}, down {downs} times before\n")

    def end_load(self, now_s: float) -> None:
        """Write down that the device survived it, and when that was, in seconds since the boot."""
        self._write(self._modules(), f"# loaded at {int(now_s)} s\n")

    @property
    def loaded_s(self) -> float | None:
        """When a load has ended, or None where that was not since the ban."""
        found = _LOADED.search(self._text())
        return None if found is None else float(found[1])

    def lift(self) -> None:
        """Nothing is banned any more."""
        self._files.remove(self._path)

    def _modules(self) -> set[str]:
        return {row[1] for row in map(str.split, self._text().splitlines()) if row[:1] == ["blacklist"]}

    def _text(self) -> str:
        return (self._files.read(self._path) or b"").decode("utf-8", "replace")

    def _write(self, modules: Iterable[str], note: str) -> None:
        head = "# An update is under way. The agent removes this file.\n"
        text = head + note + "".join(f"blacklist {module}\n" for module in sorted(modules))
        self._files.write(self._path, text.encode())


def load_list(part: PartId) -> str:
    """The file that has the part's module loaded at every boot."""
    return f"/etc/modules-load.d/{_OURS}{part.name}.conf"


def is_blacklisted(files: SystemFiles, module: str) -> bool:
    """Whether the owner of the device has said that it shall not be loaded by itself; a Ban does not count."""
    command_line = (files.read("/proc/cmdline") or b"").decode("utf-8", "replace").split()
    for word in command_line:
        name, _, value = word.partition("=")
        if name in ("modprobe.blacklist", "module_blacklist") and module in map(_spelled, value.split(",")):
            return True
    return any(module in _blacklist(files, path) for path in _config_files(files))


def _config_files(files: SystemFiles) -> Iterator[str]:
    seen: set[str] = set()
    for directory in _PLACES:
        place = files.place(directory)
        names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
        for name in names:
            if name.endswith(".conf") and not name.startswith(_OURS) and name not in seen:
                seen.add(name)
                yield f"{directory}/{name}"


def _blacklist(files: SystemFiles, path: str) -> set[str]:
    if not files.place(path).is_file():
        return set()
    text = (files.read(path) or b"").decode("utf-8", "replace").replace("\\\n", "")
    rows = (line.split() for line in text.splitlines())
    return {_spelled(row[1]) for row in rows if len(row) >= 2 and row[0] == "blacklist"}


def _spelled(name: str) -> str:
    return name.replace("-", "_")
