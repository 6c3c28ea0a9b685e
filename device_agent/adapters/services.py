"""The services of this device behind the loop's port: those of the agent's supervisor, and those that systemd runs.

systemctl and journalctl are started when somebody asks, once for all units of one manager; between two questions the
agent knows nothing of units, and costs nothing for them.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.installers.programs import Programs, search_path
from device_agent.log import Log
from device_agent.ports import ServiceView
from device_agent.probes.log_errors import LogErrors
from device_agent.supervisor.service_log import LINE_MOST, READ_MOST
from device_agent.supervisor.supervisor import Supervisor
from device_agent.supervisor.watch import Watch
from device_agent.systemd.journal import JournalErrors, UnitLog, last_lines
from device_agent.systemd.systemctl import Systemctl, UnitState, account_of
from device_agent.systemd.unit_record import UnitPlace, UnitRecord, unit_records

_OFF = ("", "disabled", "masked", "masked-runtime", "static")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitView:
    """device_agent.ports.ServiceView of a unit."""

    name: str
    wanted: bool
    running: bool
    pid: int | None
    restarts: int
    since_s: float | None
    version: str


class DeviceServices:
    """device_agent.ports.Services."""

    def __init__(self, state_dir: Path, system_root: Path, log: Log) -> None:
        self._state_dir, self._log = state_dir, log
        self._programs = Programs(search_path(system_root))
        self._supervisor = Supervisor(state_dir)
        self._watch = Watch(self._supervisor, self._notice)
        self._file_errors, self._unit_errors = LogErrors(), JournalErrors(self._programs)

    def start(self) -> None:
        """Start what the supervisor ought to run, and watch it; systemd does so itself."""
        self._watch.start()

    def list(self) -> Sequence[ServiceView]:
        """All services, by name."""
        units = dict(unit_records(self._state_dir))
        found: list[ServiceView] = [view for view in self._supervisor.list() if view.name not in units]
        for user in dict.fromkeys(record.user for record in units.values()):
            found += self._units(user, {name: record for name, record in units.items() if record.user == user})
        return sorted(found, key=lambda view: view.name)

    def logs(self, service: str, lines: int) -> Sequence[str]:
        """The newest lines, oldest first."""
        record = UnitPlace(self._state_dir, service).record()
        if record is None:
            return self._supervisor.logs(service, lines)
        found = last_lines(self._programs, _log_of(record).matches, lines, READ_MOST)
        return [line[:LINE_MOST] for line in found]

    def log_errors(self) -> Mapping[str, float]:
        """Error lines a minute by service."""
        units = dict(unit_records(self._state_dir))
        files = {name: self._supervisor.directory(name).log for name in self._supervisor.names() if name not in units}
        of_units = self._unit_errors.per_minute({name: _log_of(record) for name, record in units.items()})
        return {**self._file_errors.per_minute(files), **of_units}

    def refresh(self) -> None:
        """Look again now."""
        self._watch.refresh()

    def stop(self, *, services_too: bool) -> None:
        """Watch no more; end the supervisor's services where the owner wants that. Units are systemd's."""
        self._watch.stop()
        if services_too:
            self._supervisor.stop_all()

    def _units(self, user: str | None, records: Mapping[str, UnitRecord]) -> Iterable[ServiceView]:
        account = None if user is None else account_of(user)
        states = Systemctl(self._programs, account).show(*(record.unit for record in records.values()))
        for (name, record), state in zip(records.items(), states, strict=True):
            quiet = UnitPlace(self._state_dir, name).is_quiet
            yield unit_view(name, record.version, state, quiet=quiet)

    def _notice(self, service: str, text: str) -> None:
        self._log.info("service", f"{service}: {text}")


def unit_view(name: str, version: str, state: UnitState, *, quiet: bool) -> UnitView:
    """A unit that its owner has stopped and does not start at boot is not wanted; nor is one that is being updated."""
    left_alone = state["ActiveState"] == "inactive" and (state["UnitFileState"] in _OFF or state.has_done_its_work)
    began_us = state.number("ActiveEnterTimestampMonotonic")
    return UnitView(
        name=name,
        wanted=not (quiet or left_alone or state.is_masked),
        running=state.is_active,
        pid=state.number("MainPID") or None,
        restarts=state.restarts,
        since_s=max(0.0, time.monotonic() - began_us / 1e6) if state.is_active and began_us else None,
        version=version,
    )


def _log_of(record: UnitRecord) -> UnitLog:
    """Whose service manager writes under which uid."""
    if record.user is None:
        return UnitLog(record.unit)
    return UnitLog(record.unit, account_of(record.user).uid)
