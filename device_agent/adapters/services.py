"""The supervised services of this device behind the loop's port."""

from collections.abc import Sequence
from pathlib import Path

from device_agent.log import Log
from device_agent.ports import ServiceView
from device_agent.supervisor.supervisor import Supervisor
from device_agent.supervisor.watch import Watch


class SupervisedServices:
    """device_agent.ports.Services on the agent's own supervisor."""

    def __init__(self, state_dir: Path, log: Log) -> None:
        self._log = log
        self._supervisor = Supervisor(state_dir)
        self._watch = Watch(self._supervisor, self._notice)

    def start(self) -> None:
        """Start what ought to run, and watch it."""
        self._watch.start()

    def list(self) -> Sequence[ServiceView]:
        """All services, by name."""
        return self._supervisor.list()

    def logs(self, service: str, lines: int) -> Sequence[str]:
        """The newest lines, oldest first."""
        return self._supervisor.logs(service, lines)

    def log_path(self, service: str) -> Path:
        """The file that the service writes to."""
        return self._supervisor.directory(service).log

    def refresh(self) -> None:
        """Look again now."""
        self._watch.refresh()

    def stop(self, *, services_too: bool) -> None:
        """Watch no more; end the services where the owner wants that."""
        self._watch.stop()
        if services_too:
            self._supervisor.stop_all()

    def _notice(self, service: str, text: str) -> None:
        self._log.info("service", f"{service}: {text}")
