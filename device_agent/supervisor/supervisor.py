"""Starts, stops and lists services.

1. One process at most runs a service: whoever acts on it holds its lock.
2. A service that runs survives the agent; the next process of the agent finds it by number and start time.
3. What ought to run is on disk before it is started or stopped.
4. Every call may be repeated, and after a kill at any instant.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

from device_agent.adapters.files import storing
from device_agent.installers.crash import crash_point
from device_agent.supervisor import service_log
from device_agent.supervisor.process import (
    ProcessId,
    age_s,
    boot_id,
    end_group,
    held,
    is_alive,
    reap,
    signal_group,
    wait_gone,
)
from device_agent.supervisor.service_dir import ServiceDir, Started, Wanted
from device_agent.supervisor.spawn import spawn
from device_agent.supervisor.spec import ServiceSpec, ServiceStatus
from fleet_protocol.errors import InstallError, PolicyError
from fleet_protocol.ids import check_id, is_id


class Supervisor:
    """The services of one state directory. Keeps nothing in memory: every process may have its own."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / "services"

    def start(self, service: str, spec: ServiceSpec) -> ServiceStatus:
        """The service runs with exactly this specification; one that already does is left alone (rule 4).

        Raises InstallError `start` where the program can not be run, or a storage code.
        """
        directory = self.directory(service)
        with storing(f"starting {service}"):
            directory.make()
            with directory.locked() as lock:
                self._start(directory, spec, lock)
        return self.status(service)

    def stop(self, service: str, stop_s: float | None = None) -> None:
        """Nothing of the service runs, nor will: SIGTERM, after `stop_s` SIGKILL, to its whole session.

        None means the time that its own specification gives it. An unknown service is stopped already.
        """
        directory = self.directory(service)
        if not directory.path.is_dir():
            return
        with storing(f"stopping {service}"), directory.locked():
            wanted = directory.replaceable()
            if wanted is not None and wanted.up:
                directory.write_wanted(Wanted(up=False, generation=wanted.generation, spec=wanted.spec))
                crash_point("service.after_unwanted")
            self._end(directory, _patience_s(wanted, stop_s))

    def forget(self, service: str, stop_s: float | None = None) -> None:
        """Stop the service and drop it from the list; its log and data stay."""
        self.stop(service, stop_s)
        directory = self.directory(service)
        if directory.path.is_dir():
            with storing(f"forgetting {service}"), directory.locked():
                directory.forget()

    def restart(self, service: str) -> bool | None:
        """Start a service that ended by itself, and count it; a device that was off is not counted.

        True once it was started, False where it runs or should not, None where another process acts on it now: a stop
        may take minutes, and who restarts one service has others to look after.
        """
        directory = self.directory(service)
        with storing(f"restarting {service}"), directory.locked_at_once() as lock:
            return None if lock is None else self._restart(directory, lock)

    def _restart(self, directory: ServiceDir, lock: int) -> bool:
        wanted, started = directory.wanted(), directory.started()
        if wanted is None or not wanted.up or _alive(started) is not None:
            return False
        self._clear(directory, started)
        spawn(directory, lock, _restarts(wanted, directory.started(), ended=_died(started)))
        return True

    def status(self, service: str) -> ServiceStatus:
        """How the service is now. Raises PolicyError `unknown-service` for one that there is not."""
        found = self._status(service)
        if found is None:
            raise PolicyError("unknown-service", f"there is no service {service}")
        return found

    def process(self, service: str) -> ProcessId | None:
        """The live process of the service."""
        return _alive(self.directory(service).started())

    def list(self) -> tuple[ServiceStatus, ...]:
        """All services, by name."""
        found = (self._status(service) for service in self.names())
        return tuple(status for status in found if status is not None)

    def names(self) -> Iterator[str]:
        """The names of all services, sorted."""
        if self._root.is_dir():
            names = sorted(path.name for path in self._root.iterdir() if is_id(path.name))
            yield from (name for name in names if (self._root / name / "wanted.json").exists())

    def logs(self, service: str, lines: int) -> tuple[str, ...]:
        """The newest lines of the service's output, oldest first; at most 96 KiB. A log outlives its service.

        Raises PolicyError `unknown-service` where there never was one.
        """
        directory = self.directory(service)
        if not directory.log.exists():
            raise PolicyError("unknown-service", f"there is no service {service}")
        with storing(f"reading the log of {service}"):
            return service_log.last_lines(directory.log, lines)

    def stop_all(self) -> None:
        """End every process for an orderly exit of the agent; at its next start they are started again."""
        names = tuple(self.names())
        for service in names:
            process = self.process(service)
            if process is not None:
                signal_group(process, signal.SIGTERM)
        for service in names:
            directory = self.directory(service)
            with storing(f"stopping {service}"), directory.locked():
                self._end(directory, _patience_s(directory.replaceable(), None))

    def directory(self, service: str) -> ServiceDir:
        """Where the service's files are. Raises ProtocolError `schema` for what is not an id."""
        return ServiceDir(self._root / check_id(service, "service"))

    def _status(self, service: str) -> ServiceStatus | None:
        directory = self.directory(service)
        with storing(f"reading {service}"):
            wanted, started = directory.wanted(), directory.started()
        if wanted is None:
            return None
        process = _alive(started)
        return ServiceStatus(
            name=service,
            wanted=wanted.up,
            running=process is not None,
            ended=process is None and wanted.up and _died(started),
            pid=None if process is None else process.pid,
            restarts=_restarts(wanted, started),
            since_s=None if process is None else age_s(process),
            version=wanted.spec.version,
        )

    def _start(self, directory: ServiceDir, spec: ServiceSpec, lock: int) -> None:
        wanted, started = directory.replaceable(), directory.started()
        same = wanted is not None and wanted.up and wanted.spec == spec
        if same and _alive(started) is not None:
            return
        self._end(directory, _patience_s(wanted, None))
        crash_point("service.before_start")
        generation = 1 if wanted is None else wanted.generation + (not same)
        wanted = Wanted(up=True, generation=generation, spec=spec)
        if not same:
            directory.write_wanted(wanted)
        crash_point("service.after_wanted")
        spawn(directory, lock, _restarts(wanted, directory.started()))
        crash_point("service.after_start")

    def _end(self, directory: ServiceDir, stop_s: float) -> None:
        started = directory.started()
        if started is None or started.process is None:
            return
        with held(started.process) as pidfd:
            if pidfd is not None:
                signal_group(started.process, signal.SIGTERM)
                crash_point("service.after_signal")
                wait_gone(pidfd, stop_s)
        self._clear(directory, started)

    def _clear(self, directory: ServiceDir, started: Started | None) -> None:
        """What a dead leader left in its session is killed, for it may hold the service's port."""
        if started is None or started.process is None:
            return
        reap(started.process.pid)
        if not end_group(started.process):
            raise InstallError("io", f"{directory.path.name} can not be killed")
        directory.write_started(Started(process=None, generation=started.generation, restarts=started.restarts))


def _alive(started: Started | None) -> ProcessId | None:
    if started is None or started.process is None or not is_alive(started.process):
        return None
    return started.process


def _died(started: Started | None) -> bool:
    """Whether it ended by itself: in this boot, and not by an orderly stop."""
    return started is not None and started.process is not None and started.process.boot == boot_id()


def _restarts(wanted: Wanted, started: Started | None, *, ended: bool = False) -> int:
    if started is None or started.generation != wanted.generation:
        return 0
    return started.restarts + ended


def _patience_s(wanted: Wanted | None, stop_s: float | None) -> float:
    if stop_s is not None:
        return stop_s
    return 0.0 if wanted is None else wanted.spec.stop_s
