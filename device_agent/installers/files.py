"""Releases that are only files: whoever uses them follows `slots/<package>/current`."""

from typing import Final

from device_agent.installers.port import Device, Part, Verdict, health_check
from device_agent.installers.switch import switch_to
from fleet_protocol.catalogue import Kind

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class FilesInstaller:
    """Kind `files`. Runs nothing of the release but its health check."""

    kind: Kind = "files"

    def __init__(self, device: Device) -> None:
        self._device = device

    def stage(self, part: Part) -> None:
        """Any content is fine."""

    def activate(self, part: Part) -> None:
        """Stop a service that an earlier release of the package was, and switch."""
        if not any(target.kind == "service" for target in part.release.targets):
            self._device.supervisor.forget(part.package)
        switch_to(self._device.slots(part.package), part.slot)

    def check(self, part: Part) -> Verdict:
        """What the signed check says; well where there is none."""
        check = health_check(part)
        if check is None:
            return Verdict(code=None)
        from device_agent.installers.health import run_check  # noqa: PLC0415 - no other operation needs HTTP

        slot = self._device.slots(part.package).path(part.slot)
        environment = {"PATH": _PATH, "LANG": "C.UTF-8", **self._device.variables}
        return run_check(check, slot, environment, self._device.variables)

    def commit(self, part: Part) -> None:
        """Nothing was kept for a rollback but the other slot, which stays."""

    def revert(self, package: str, back: Part | None) -> None:
        """The switch back was all."""
