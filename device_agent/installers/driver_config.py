"""Which modules are loaded by themselves: modprobe.d(5) and modules-load.d(5), the owner's part and ours."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from device_agent.installers.port import PartId
from device_agent.installers.system_files import SystemFiles
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
_SINCE: Final = re.compile(r"^# loaded at ([0-9]{1,12}) s$", re.MULTILINE)


class Ban:
    """Keeps a package's modules from being loaded by the boot or by udev, while nobody knows what they do.

    A blacklist file: whoever loads a module by its name, as the installer does, is not kept from it.
    """

    def __init__(self, files: SystemFiles, package: str) -> None:
        self._files = files
        self._path = f"/etc/modprobe.d/{_OURS}{check_id(package, 'package')}.conf"

    def set(self, modules: Iterable[str], loaded_s: float | None = None) -> None:
        """Ban exactly these modules, durably. `loaded_s` is the time since boot at which they were loaded by hand."""
        head = "# An update is under way. The agent removes this file.\n"
        since = "" if loaded_s is None else f"# loaded at {int(loaded_s)} s\n"
        text = head + since + "".join(f"blacklist {module}\n" for module in sorted(modules))
        if self._files.read(self._path) != text.encode():
            self._files.write(self._path, text.encode())

    @property
    def loaded_s(self) -> float | None:
        """When the banned modules were loaded by hand, or None where nothing is banned or was loaded."""
        found = _SINCE.search((self._files.read(self._path) or b"").decode("utf-8", "replace"))
        return None if found is None else float(found[1])

    def lift(self) -> None:
        """Nothing is banned any more."""
        self._files.remove(self._path)


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
