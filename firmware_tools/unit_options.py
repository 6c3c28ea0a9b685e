"""The systemd unit of a release: what is said of it in `fairlead.toml`, and whether a device could run it.

[unit]
file = "my-service.service"          # in the tree
name = "my-service.service"          # as systemd is to know it; default: the file's own name
scope = "system"                     # or user
enable = true                        # whether its first installation enables it
"""

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from fleet_protocol.errors import PolicyError
from fleet_protocol.install import Unit
from fleet_protocol.unit_file import UnitFileError, read_unit_file

_SCOPES: Final[Mapping[str, Literal["system", "user"]]] = {"system": "system", "user": "user"}


def unit_of(options: Mapping[str, Any]) -> Unit:
    """Raises PolicyError `bad-request` for what is missing or wrong, ProtocolError for a name that no unit has."""
    names = {"file", "name", "scope", "enable"}
    file, scope, enable = options.get("file"), options.get("scope", "system"), options.get("enable", True)
    if not isinstance(file, str) or not set(options) <= names:
        raise PolicyError("bad-request", "a unit has file, and may have name, scope and enable")
    name = options.get("name", file.rpartition("/")[2])
    if not isinstance(name, str) or not isinstance(enable, bool):
        raise PolicyError("bad-request", "unit.name must be a string, unit.enable true or false")
    if scope not in _SCOPES:
        raise PolicyError("bad-request", f"unit.scope must be one of {', '.join(_SCOPES)}")
    return Unit(name=name, file=file, scope=_SCOPES[scope], enable=enable)


def check_unit(tree: Path, unit: Unit) -> None:
    """Raise PolicyError `bad-request` for a unit that every device would refuse, or that could not do what is said."""
    path = tree / unit.file
    if not tree.is_dir() or not path.is_file():
        raise PolicyError("bad-request", f"{unit.file} is not in {tree}")
    try:
        found = read_unit_file(path.read_bytes())
    except UnitFileError as error:
        raise PolicyError("bad-request", f"{path}: {error}") from None
    if unit.enable and not found.install:
        raise PolicyError("bad-request", f"{path}: it has nothing to enable: give it an [Install], or enable = false")
    for name in found.programs:
        program = tree / name
        if not program.is_file() or not program.stat().st_mode & stat.S_IXUSR:
            raise PolicyError("bad-request", f"{path} runs {name}, which is not an executable file in {tree}")


def unit_lines(unit: Unit) -> list[str]:
    """What it means on a device, for whoever signs."""
    where = "/etc/systemd/system" if unit.scope == "system" else "~/.config/systemd/user of the device's unit_user"
    enabled = "enabled when it is first installed" if unit.enable else "not enabled"
    return [f"  is a systemd unit: {unit.file} becomes {unit.name} in {where}, {enabled}"]
