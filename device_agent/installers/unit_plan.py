"""What a release wants of systemd, on this device: from its slot, its description and the owner's settings alone."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.adapters.files import read_optional
from device_agent.installers.command import check_executable, command
from device_agent.installers.port import Device, Part
from device_agent.installers.service_environment import service_environment
from device_agent.installers.unit_text import Program, drop_in, program_unit
from device_agent.systemd.systemctl import Systemctl, own_account
from device_agent.systemd.unit_record import UnitPlace, UnitRecord
from fleet_protocol.archive import check_member_name
from fleet_protocol.errors import InstallError, ProtocolError
from fleet_protocol.install import Unit
from fleet_protocol.unit_file import SIZE, SLOT, UnitFile, UnitFileError, read_unit_file

_BACKOFF_SINCE: Final = 254


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPlan:
    """One unit as it is to be."""

    record: UnitRecord
    file: UnitFile
    enable: bool
    """Whether its first installation enables it."""
    brought: bool
    """Whether the release brings it; otherwise the agent has written it."""


def plan_unit(device: Device, part: Part) -> UnitPlan:
    """The unit of this part. Raises InstallError `start` or `unsupported` for one that there can not be here."""
    install = part.target.install
    if install.unit is not None:
        file, name, enable = _brought(device, part, install.unit), install.unit.name, install.unit.enable
    elif install.exec:
        file, name, enable = _written(device, part), f"{part.id.name}.service", True
    else:
        raise InstallError("unsupported", f"{part.id.name} has no program to run")
    record = UnitRecord(
        unit=name,
        user=_user(device, install.unit),
        package=part.release.package,
        version=part.release.version,
        target=part.target.sha256,
    )
    return UnitPlan(record=record, file=file, enable=enable, brought=install.unit is not None)


def drop_in_of(device: Device, service: str, record: UnitRecord) -> str:
    """What stands beside the unit of a service, whatever release it is of."""
    told = {"FAIRLEAD_PACKAGE": record.package, "FAIRLEAD_VERSION": record.version}
    guard = UnitPlace(device.state_dir, service).guard
    return drop_in(state_dir=device.state_dir, guard=guard, environment=told)


def _user(device: Device, unit: Unit | None) -> str | None:
    is_root = _is_root(device)
    if unit is None:
        return None if is_root else own_account().name
    if unit.scope == "system":
        if not is_root:
            raise InstallError("unsupported", f"{unit.name} is a unit of the system, and this agent is not root")
        return None
    if os.geteuid() != 0:
        return own_account().name
    if device.unit_user is None:
        raise InstallError("unsupported", f"{unit.name} is a unit of a user, and no unit_user is set on this device")
    return device.unit_user


def _is_root(device: Device) -> bool:
    """Whether this process may change the system's units; in a trial's own root anybody may."""
    return os.geteuid() == 0 or device.system_root != Path("/")


def _brought(device: Device, part: Part, unit: Unit) -> UnitFile:
    content = device.content(part)
    try:
        data = read_optional(content / check_member_name(unit.file), SIZE)
        if data is None:
            raise UnitFileError("it is not in the artifact")
        packed = read_unit_file(data)
        for program in packed.programs:
            check_executable(content / check_member_name(program))
        values: Mapping[str, str] = {**device.variables, SLOT: str(device.active_content(part))}
        return read_unit_file(packed.filled(values).encode())
    except (UnitFileError, ProtocolError) as error:
        raise InstallError("start", f"{unit.file}: {error}") from None


def _written(device: Device, part: Part) -> UnitFile:
    check_executable(command(device, part, device.content(part))[0])
    active = device.active_content(part)
    program = Program(
        name=part.id.name,
        exec=command(device, part, active),
        directory=str(active),
        environment=service_environment(device, part),
        stop_s=part.target.install.stop_s,
    )
    backoff = Systemctl(device.programs).version() >= _BACKOFF_SINCE
    return read_unit_file(program_unit(program, user=not _is_root(device), backoff=backoff).encode())
