"""Releases that run: under systemd where the device has it, otherwise under the agent's own supervisor.

Which of the two is the device's affair, and may have changed since the release before. What the other one still has of
a part is quieted, taken over and given back like everything else.
"""

from device_agent.installers.port import Device, Part, PartId, Verdict
from device_agent.installers.supervised import SupervisedInstaller
from device_agent.installers.unit import UnitInstaller
from fleet_protocol.catalogue import Kind


class ServiceInstaller:
    """Kind `service`."""

    kind: Kind = "service"

    def __init__(self, device: Device) -> None:
        self._by_systemd = device.services_by_systemd
        self._supervised, self._units = SupervisedInstaller(device), UnitInstaller(device)

    def stage(self, part: Part, *, irreversible: bool) -> None:
        """Refuse what the device's own way of running services can not run. The other slot is the way back."""
        (self._units if self._by_systemd else self._supervised).stage(part)

    def quiet(self, part: PartId) -> None:
        """Stopped, whoever runs it."""
        self._supervised.quiet(part)
        if self._units.concerns(part):
            self._units.quiet(part)

    def activate(self, part: Part) -> None:
        """It runs as this device runs services, and in no other way."""
        if self._by_systemd:
            self._supervised.forget(part.id)
            self._units.activate(part)
        else:
            self._units.retire(part.id)
            self._supervised.activate(part)

    def retire(self, part: Part) -> None:
        """There is no such service any more."""
        self._supervised.forget(part.id)
        self._units.retire(part.id)

    def check(self, part: Part) -> Verdict:
        """`crashed` where it ended by itself since it was activated; then what its own check says."""
        return (self._units if self._by_systemd else self._supervised).check(part)

    def prove_way_back(self, part: PartId) -> None:
        """What a unit was made of; the supervisor needs nothing but the other slot."""
        self._units.prove_way_back(part)

    def commit(self, part: PartId) -> None:
        """The other slot stays as it is, to go back to; what was kept of the system is dropped."""
        self._units.commit(part)

    def revert(self, part: PartId, back: Part | None) -> None:
        """The previous release runs again as it did before, or nothing where there was none."""
        was_unit = self._units.was_unit(part, back)
        if back is None or was_unit:
            self._supervised.forget(part)
        if self._units.concerns(part):
            self._units.revert(part, back)
        if back is not None and not was_unit:
            self._supervised.activate(back)
        self._units.commit(part)  # what was kept before anything could be noted
