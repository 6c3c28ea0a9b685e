"""The argument vector that a release names, as this device runs it."""

import os
from pathlib import Path

from device_agent.installers.port import Device, Part
from device_agent.installers.substitution import substitute
from fleet_protocol.archive import check_member_name
from fleet_protocol.errors import InstallError, ProtocolError


def command(device: Device, part: Part, root: Path) -> tuple[str, ...]:
    """Every variable filled in, the program below `root` unless it is an absolute path. Raises InstallError `start`."""
    arguments = [substitute(item, device.variables) for item in part.target.install.exec]
    if not os.path.isabs(arguments[0]):  # noqa: PTH117  it is text until it was checked
        arguments[0] = str(root / _inside(arguments[0]))
    return tuple(arguments)


def check_executable(program: str | Path) -> None:
    """Raises InstallError `start` for what can not be run."""
    if not os.access(program, os.X_OK):
        raise InstallError("start", f"{program} is not an executable file")


def _inside(program: str) -> str:
    try:
        return check_member_name(program)
    except ProtocolError:
        raise InstallError("start", f"{program!a} is not a path inside the release") from None
