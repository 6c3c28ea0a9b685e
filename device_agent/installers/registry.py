"""Which installer takes which kind, and in which order the parts of a release go."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from device_agent.core.plan import PlannedRelease
from device_agent.installers.driver import DriverInstaller
from device_agent.installers.files import FilesInstaller
from device_agent.installers.port import Device, Installer, Part, PartId
from device_agent.installers.programs import Programs, search_path
from device_agent.installers.service import ServiceInstaller
from device_agent.installers.slots import SlotName
from device_agent.settings import AgentSettings
from device_agent.supervisor.supervisor import Supervisor
from device_agent.systemd.systemctl import is_running
from fleet_protocol.catalogue import Kind
from fleet_protocol.errors import InstallError


def _package(device: Device) -> Installer:
    from device_agent.installers.package import PackageInstaller  # noqa: PLC0415 - few releases bring packages

    return PackageInstaller(device)


INSTALLERS: Final[Mapping[Kind, Callable[[Device], Installer]]] = {
    "driver": DriverInstaller,
    "files": FilesInstaller,
    "package": _package,
    "service": ServiceInstaller,
}
ORDER: Final[tuple[Kind, ...]] = ("package", "driver", "files", "service", "image", "agent")
"""What others need comes first: a service may use a package, a driver and files. They are made quiet in reverse."""


def device_of(settings: AgentSettings) -> Device:
    """What installers use, of this device."""
    return Device(
        state_dir=settings.state_dir,
        variables=settings.variables,
        supervisor=Supervisor(settings.state_dir),
        system_root=settings.system_root,
        programs=Programs(search_path(settings.system_root)),
        services_by_systemd=_by_systemd(settings),
        unit_user=settings.unit_user,
    )


def _by_systemd(settings: AgentSettings) -> bool:
    if settings.service_manager == "auto":
        return os.geteuid() == 0 and is_running(settings.system_root)
    return settings.service_manager == "systemd"


def parts_of(release: PlannedRelease, slot: SlotName) -> tuple[Part, ...]:
    """The release's parts in the order of their activation."""
    targets = sorted(release.targets, key=lambda target: ORDER.index(target.kind))
    return tuple(Part(release=release, target=target, slot=slot) for target in targets)


def in_order(parts: Iterable[PartId]) -> tuple[PartId, ...]:
    """Each part once, in the order of activation."""
    return tuple(sorted(dict.fromkeys(parts), key=lambda part: ORDER.index(part.kind)))


def installer_of(part: Part, device: Device) -> Installer:
    """The part's installer, or InstallError `unsupported`."""
    return installer_of_kind(part.target.kind, device)


def installer_of_kind(kind: Kind, device: Device) -> Installer:
    """The installer of a kind, or InstallError `unsupported`."""
    make = INSTALLERS.get(kind)
    if make is None:
        raise InstallError("unsupported", f"this device does not install releases of kind {kind}")
    return make(device)
