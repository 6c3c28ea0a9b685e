"""Releases that run: stop the old one, switch, start the new one, under the agent's own supervisor."""

from device_agent.installers.command import check_executable, command
from device_agent.installers.crash import crash_point
from device_agent.installers.port import Device, Part, PartId, Verdict
from device_agent.installers.service_environment import service_environment
from device_agent.supervisor.spec import ServiceSpec
from fleet_protocol.errors import InstallError, PolicyError


class SupervisedInstaller:
    """Kind `service`, where there is no systemd. The service is called like its part."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def stage(self, part: Part) -> None:
        """The program is in the slot, or an absolute path that is there, and every variable is set."""
        check_executable(self._spec(part).exec[0])

    def quiet(self, part: PartId) -> None:
        """Stopped, and known not to be wanted, so that a power cut does not bring it back."""
        crash_point("service.before_stop")
        self._device.supervisor.stop(part.name)
        crash_point("service.after_stop")

    def activate(self, part: Part) -> None:
        """The service runs out of the active slot; one that does already is left alone."""
        self._device.supervisor.start(part.id.name, self._spec(part))

    def forget(self, part: PartId) -> None:
        """There is no such service any more."""
        self._device.supervisor.forget(part.name)

    def check(self, part: Part) -> Verdict:
        """`crashed` where it ended by itself since it was activated, even if it runs again by now."""
        crash = self._crash(part.id.name)
        if crash is not None:
            return Verdict(code="crashed", detail=f"{part.id.name}: {crash}"[:300])
        check = part.target.install.check
        if check is None:
            return Verdict(code=None)
        from device_agent.installers.health import run_check  # noqa: PLC0415 - no other operation needs HTTP

        slot = self._device.content(part)
        return run_check(check, slot, service_environment(self._device, part), self._device.variables)

    def _crash(self, name: str) -> str | None:
        supervisor = self._device.supervisor
        try:
            status = supervisor.status(name)
        except PolicyError as error:
            return error.detail
        if not status.wanted:
            return "is stopped"
        if status.ended or status.restarts:
            last = " | ".join(supervisor.logs(name, 3))
            return f"ended by itself {status.restarts + status.ended} times; its last output: {last}"
        if not status.running:
            supervisor.restart(name)  # the device was off, or the agent stopped it: not the release's fault
        return None

    def _spec(self, part: Part) -> ServiceSpec:
        install, slot = part.target.install, self._device.content(part)
        if not install.exec:
            what = "no program to run" if install.unit is None else "only a unit, and systemd runs no services here"
            raise InstallError("unsupported", f"{part.id.name} has {what}")
        return ServiceSpec(
            exec=command(self._device, part, slot),
            cwd=str(slot),
            env=service_environment(self._device, part),
            version=part.release.version,
            stop_s=float(install.stop_s),
        )
