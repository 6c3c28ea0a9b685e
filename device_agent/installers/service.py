"""Releases that run: stop the old one, switch, start the new one, under the agent's own supervisor."""

import os
from collections.abc import Mapping
from typing import Final

from device_agent.core.plan import PlannedTarget
from device_agent.installers.crash import crash_point
from device_agent.installers.port import Device, Part, Verdict, health_check
from device_agent.installers.substitution import substitute
from device_agent.installers.switch import switch_to
from device_agent.supervisor.spec import ServiceSpec
from fleet_protocol.archive import check_member_name
from fleet_protocol.catalogue import Kind
from fleet_protocol.errors import InstallError, PolicyError, ProtocolError

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ServiceInstaller:
    """Kind `service`. The service is called like its package."""

    kind: Kind = "service"

    def __init__(self, device: Device) -> None:
        self._device = device

    def stage(self, part: Part) -> None:
        """The program is in the slot, or an absolute path that is there, and every variable is set."""
        program = self._spec(part).exec[0]
        if not os.access(program, os.X_OK):
            raise InstallError("start", f"{program} is not an executable file")

    def activate(self, part: Part) -> None:
        """From the stop to the start the package is down; nothing else happens in between."""
        supervisor, spec = self._device.supervisor, self._spec(part)
        slots = self._device.slots(part.package)
        if slots.active() != part.slot:
            crash_point("service.before_stop")
            supervisor.stop(part.package)
            crash_point("service.after_stop")
        switch_to(slots, part.slot)
        supervisor.start(part.package, spec)

    def check(self, part: Part) -> Verdict:
        """`crashed` where it ended by itself since it was activated, even if it runs again by now."""
        crash = self._crash(part.package)
        if crash is not None:
            return Verdict(code="crashed", detail=f"{part.package}: {crash}"[:300])
        check = health_check(part)
        if check is None:
            return Verdict(code=None)
        from device_agent.installers.health import run_check  # noqa: PLC0415 - no other operation needs HTTP

        slot = self._device.slots(part.package).path(part.slot)
        return run_check(check, slot, self._environment(part), self._device.variables)

    def _crash(self, package: str) -> str | None:
        supervisor = self._device.supervisor
        try:
            status = supervisor.status(package)
        except PolicyError as error:
            return error.detail
        if not status.wanted:
            return "is stopped"
        if status.ended or status.restarts:
            last = " | ".join(supervisor.logs(package, 3))
            return f"ended by itself {status.restarts + status.ended} times; its last output: {last}"
        if not status.running:
            supervisor.restart(package)  # the device was off, or the agent stopped it: not the release's fault
        return None

    def commit(self, part: Part) -> None:
        """The other slot stays as it is, to go back to."""

    def revert(self, package: str, back: Part | None) -> None:
        """Run the previous release again, or nothing where there was none."""
        if back is None:
            self._device.supervisor.forget(package)
        else:
            self._device.supervisor.start(package, self._spec(back))

    def _spec(self, part: Part) -> ServiceSpec:
        target = _runs(part)
        arguments = [substitute(item, self._device.variables) for item in target.install.exec]
        slot = self._device.slots(part.package).path(part.slot)
        if not os.path.isabs(arguments[0]):  # noqa: PTH117  it is text until it was checked
            arguments[0] = str(slot / _inside(arguments[0]))
        return ServiceSpec(
            exec=tuple(arguments),
            cwd=str(slot),
            env=self._environment(part),
            version=part.release.version,
            stop_s=float(target.install.stop_s),
        )

    def _environment(self, part: Part) -> Mapping[str, str]:
        """All that a service is told. It keeps its own data in STATE_DIRECTORY: its slot must not change."""
        data = str(self._device.supervisor.directory(part.package).data)
        return {
            "PATH": _PATH,
            "LANG": "C.UTF-8",
            "HOME": data,
            "STATE_DIRECTORY": data,
            "PYTHONDONTWRITEBYTECODE": "1",
            "FAIRLEAD_PACKAGE": part.package,
            "FAIRLEAD_VERSION": part.release.version,
            **self._device.variables,
        }


def _runs(part: Part) -> PlannedTarget:
    found = [target for target in part.targets if target.install.exec]
    if len(found) != 1:
        raise InstallError("unsupported", f"{part.package} has {len(found)} programs to run, one is supported")
    return found[0]


def _inside(program: str) -> str:
    try:
        return check_member_name(program)
    except ProtocolError:
        raise InstallError("start", f"{program!a} is not a path inside the release") from None
