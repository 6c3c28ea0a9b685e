"""Which installer takes which kind."""

from collections.abc import Callable, Mapping
from typing import Final

from device_agent.core.plan import PlannedRelease
from device_agent.installers.files import FilesInstaller
from device_agent.installers.port import Device, Installer, Part
from device_agent.installers.service import ServiceInstaller
from device_agent.installers.slots import SlotName
from device_agent.settings import AgentSettings
from device_agent.supervisor.supervisor import Supervisor
from fleet_protocol.errors import InstallError

INSTALLERS: Final[Mapping[str, Callable[[Device], Installer]]] = {
    "files": FilesInstaller,
    "service": ServiceInstaller,
}


def device_of(settings: AgentSettings) -> Device:
    """What installers use, of this device."""
    supervisor = Supervisor(settings.state_dir)
    return Device(state_dir=settings.state_dir, variables=settings.variables, supervisor=supervisor)


def parts_of(release: PlannedRelease, slot: SlotName) -> tuple[Part, ...]:
    """The release's parts, one per kind, in the order in which its targets name the kinds."""
    kinds = dict.fromkeys(target.kind for target in release.targets)
    return tuple(
        Part(release=release, slot=slot, targets=tuple(target for target in release.targets if target.kind == kind))
        for kind in kinds
    )


def installer_of(part: Part, device: Device) -> Installer:
    """The part's installer, or InstallError `unsupported`."""
    kind = part.targets[0].kind
    return installer_of_kind(kind, device)


def installer_of_kind(kind: str, device: Device) -> Installer:
    """The installer of a kind, or InstallError `unsupported`."""
    make = INSTALLERS.get(kind)
    if make is None:
        raise InstallError("unsupported", f"this device does not install releases of kind {kind}")
    return make(device)
