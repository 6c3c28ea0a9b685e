"""All readings of one device behind the port of the loop."""

from collections.abc import Callable, Mapping

from device_agent.ports import Services, ServiceView
from device_agent.probes.judgement import judge, judge_machine
from device_agent.probes.log_errors import LogErrors
from device_agent.probes.machine import Disk, MachineProbe, cpus, read_disk, running_names
from device_agent.probes.network import NetworkProbe
from device_agent.settings import AgentSettings, Thresholds
from fleet_protocol.messages import CheckResult, Verdict


class DeviceProbes:
    """device_agent.ports.Probes. Never blocks on the network; the newest machine reading serves both its methods."""

    def __init__(self, settings: AgentSettings, services: Services, connected: Callable[[], bool]) -> None:
        self._settings, self._services, self._connected = settings, services, connected
        self._machine = MachineProbe(settings.state_dir)
        self._network = NetworkProbe(settings.probes)
        self._file_errors = LogErrors()

    def telemetry(self) -> Mapping[str, float]:
        """Flat numbers."""
        return self._machine.read()

    def checks(self) -> list[CheckResult]:
        """One round of all checks."""
        thresholds = self._settings.thresholds
        services = self._services.list()
        checks = judge_machine(self._machine.read(), cpus(), thresholds) + self._disks()
        checks += [check_service(service, thresholds) for service in services]
        checks += self._log_errors() + self._processes()
        checks.append(check_broker(connected=self._connected()))
        return checks + self._network.results()

    def _log_errors(self) -> list[CheckResult]:
        """Of the services, and of the files that the owner names."""
        most = self._settings.thresholds.log_errors_per_min
        files = self._file_errors.per_minute({str(path): path for path in self._settings.probes.log_files})
        rates = {f"/{name}": rate for name, rate in self._services.log_errors().items()} | files
        return [
            judge(f"log_errors{name}", rate, most, f"{rate:.0f} error lines a minute") for name, rate in rates.items()
        ]

    def _disks(self) -> list[CheckResult]:
        """The other file systems that the owner wants watched; one that holds the state as well is not said twice."""
        most, own = self._settings.thresholds.disk_percent, read_disk(self._settings.state_dir)
        found = [(path, read_disk(path)) for path in self._settings.probes.disks]
        return [
            judge(f"disk{path}", disk.percent if disk else None, most, f"{path}: {_used(disk)}")
            for path, disk in found
            if disk is None or own is None or disk.device != own.device
        ]

    def _processes(self) -> list[CheckResult]:
        wanted = self._settings.probes.processes
        running = running_names() if wanted else set()
        return [check_process(name, running) for name in wanted]


def _used(disk: Disk | None) -> str:
    return "can not be read" if disk is None else f"{disk.percent:.0f} % used"


def check_service(service: ServiceView, thresholds: Thresholds) -> CheckResult:
    """A service that ought to run and does not is critical; one that keeps ending is a warning."""
    verdict: Verdict = "ok"
    text = f"running since {service.since_s or 0:.0f} s, {service.restarts} restarts"
    if not service.wanted:
        text = "not wanted" if not service.running else "stopping"
    elif not service.running:
        verdict, text = "critical", f"not running, {service.restarts} restarts"
    elif service.restarts > thresholds.service_restarts:
        verdict = "warning"
    return CheckResult(
        name=f"service/{service.name}",
        value=float(service.restarts),
        threshold=thresholds.service_restarts,
        verdict=verdict,
        text=text,
    )


def check_process(name: str, running: set[str]) -> CheckResult:
    """Whether a process of this name runs; the kernel keeps 15 characters of a name."""
    found = name[:15] in running
    return CheckResult(
        name=f"process/{name}",
        value=float(found),
        threshold=1.0,
        verdict="ok" if found else "critical",
        text="running" if found else "no such process",
    )


def check_broker(*, connected: bool) -> CheckResult:
    """Whether the broker is connected."""
    return CheckResult(
        name="broker",
        value=float(connected),
        threshold=1.0,
        verdict="ok" if connected else "critical",
        text="connected" if connected else "not connected",
    )
