"""What a program of a release is told: a service, and its health check."""

from collections.abc import Mapping

from device_agent.installers.port import Device, Part
from device_agent.installers.programs import PATH


def environment(device: Device, part: Part) -> Mapping[str, str]:
    """All of it; nothing of the agent's own environment is inherited."""
    return {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "FAIRLEAD_PACKAGE": part.release.package,
        "FAIRLEAD_VERSION": part.release.version,
        **device.variables,
    }


def service_environment(device: Device, part: Part) -> Mapping[str, str]:
    """A service keeps its own data in STATE_DIRECTORY, whoever runs it: its slot must not change."""
    data = str(device.supervisor.directory(part.id.name).data)
    return {"HOME": data, "STATE_DIRECTORY": data, **environment(device, part)}
