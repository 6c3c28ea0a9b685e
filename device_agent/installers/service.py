"""Releases that run: stop the old one, switch, start the new one, under the agent's own supervisor."""

import os
from collections.abc import Mapping

from device_agent.installers.crash import crash_point
from device_agent.installers.port import Device, Part, PartId, Verdict
from device_agent.installers.programs import PATH
from device_agent.installers.substitution import substitute
from device_agent.supervisor.spec import ServiceSpec
from fleet_protocol.archive import check_member_name
from fleet_protocol.catalogue import Kind
from fleet_protocol.errors import InstallError, PolicyError, ProtocolError


class ServiceInstaller:
    """Kind `service`. The service is called like its part."""

    kind: Kind = "service"

    def __init__(self, device: Device) -> None:
        self._device = device

    def stage(self, part: Part, *, irreversible: bool) -> None:
        """The program is in the slot, or an absolute path that is there, and every variable is set."""
        program = self._spec(part).exec[0]
        if not os.access(program, os.X_OK):
            raise InstallError("start", f"{program} is not an executable file")

    def quiet(self, part: PartId) -> None:
        """Stopped, and known not to be wanted, so that a power cut does not bring it back."""
        crash_point("service.before_stop")
        self._device.supervisor.stop(part.name)
        crash_point("service.after_stop")

    def activate(self, part: Part) -> None:
        """The service runs out of the active slot; one that does already is left alone."""
        self._device.supervisor.start(part.id.name, self._spec(part))

    def retire(self, part: Part) -> None:
        """There is no such service any more."""
        self._device.supervisor.forget(part.id.name)

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
        return run_check(check, slot, self._environment(part), self._device.variables)

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

    def commit(self, part: PartId) -> None:
        """The other slot stays as it is, to go back to."""

    def revert(self, part: PartId, back: Part | None) -> None:
        """Run the previous release again, or nothing where there was none."""
        if back is None:
            self._device.supervisor.forget(part.name)
        else:
            self._device.supervisor.start(part.name, self._spec(back))

    def _spec(self, part: Part) -> ServiceSpec:
        install = part.target.install
        if not install.exec:
            raise InstallError("unsupported", f"{part.id.name} has no program to run")
        arguments = [substitute(item, self._device.variables) for item in install.exec]
        slot = self._device.content(part)
        if not os.path.isabs(arguments[0]):  # noqa: PTH117  it is text until it was checked
            arguments[0] = str(slot / _inside(arguments[0]))
        return ServiceSpec(
            exec=tuple(arguments),
            cwd=str(slot),
            env=self._environment(part),
            version=part.release.version,
            stop_s=float(install.stop_s),
        )

    def _environment(self, part: Part) -> Mapping[str, str]:
        """All that a service is told. It keeps its own data in STATE_DIRECTORY: its slot must not change."""
        data = str(self._device.supervisor.directory(part.id.name).data)
        return {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "HOME": data,
            "STATE_DIRECTORY": data,
            "PYTHONDONTWRITEBYTECODE": "1",
            "FAIRLEAD_PACKAGE": part.release.package,
            "FAIRLEAD_VERSION": part.release.version,
            **self._device.variables,
        }


def _inside(program: str) -> str:
    try:
        return check_member_name(program)
    except ProtocolError:
        raise InstallError("start", f"{program!a} is not a path inside the release") from None
