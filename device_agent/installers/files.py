"""Releases that are only files: whoever uses them follows `slots/<package>/current`."""

from device_agent.installers.port import Device, Part, PartId, Verdict
from device_agent.installers.programs import PATH
from fleet_protocol.catalogue import Kind


class FilesInstaller:
    """Kind `files`. Runs nothing of the release but its health check."""

    kind: Kind = "files"

    def __init__(self, device: Device) -> None:
        self._device = device

    def stage(self, part: Part, *, irreversible: bool) -> None:
        """Any content is fine, and the other slot is the way back."""

    def quiet(self, part: PartId) -> None:
        """Nothing runs."""

    def activate(self, part: Part) -> None:
        """The switch was all."""

    def retire(self, part: Part) -> None:
        """The switch was all."""

    def check(self, part: Part) -> Verdict:
        """What the signed check says; well where there is none."""
        check = part.target.install.check
        if check is None:
            return Verdict(code=None)
        from device_agent.installers.health import run_check  # noqa: PLC0415 - no other operation needs HTTP

        slot = self._device.content(part)
        environment = {"PATH": PATH, "LANG": "C.UTF-8", **self._device.variables}
        return run_check(check, slot, environment, self._device.variables)

    def prove_way_back(self, part: PartId) -> None:
        """The other slot is all there is."""

    def commit(self, part: PartId) -> None:
        """Nothing was kept for a rollback but the other slot, which stays."""

    def revert(self, part: PartId, back: Part | None) -> None:
        """The switch back was all."""
