"""Operators' commands, once a worker has verified them: some are for the machine, the others are answered at once."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from device_agent.clock import Clock
from device_agent.core.events import Commanded
from device_agent.ports import Services
from fleet_protocol import limits, strict_json
from fleet_protocol.errors import FleetError, PolicyError
from fleet_protocol.messages import Health, Reply

MACHINE: Final = frozenset({"rollback", "retry"})
_LINES: Final = 100
_LOG_SIZE: Final = limits.REPLY_SIZE // 2


class CommandDesk:
    """Used by the loop only."""

    def __init__(
        self,
        services: Services,
        health: Callable[[], Health],
        *,
        event: Callable[[Commanded], bool],
        reply: Callable[[Reply], None],
        clock: Clock,
    ) -> None:
        self._services, self._health, self._event, self._reply, self._clock = services, health, event, reply, clock

    def take(self, command: Mapping[str, Any]) -> None:
        """Carry out a verified command."""
        identity, name = str(command["id"]), str(command["name"])
        if name in MACHINE:
            self._event(Commanded(at=self._clock.moment(), id=identity, name=name, package=command["package"]))
            return
        try:
            result = self._answer(name, command)
        except (FleetError, OSError) as error:
            self._reply(refusal(identity, error))
        else:
            self._reply(Reply(id=identity, code=None, detail="", result=result))

    def _answer(self, name: str, command: Mapping[str, Any]) -> dict[str, Any]:
        if name == "check-health":
            return plain(self._health())
        if name == "list-services":
            return {"services": list_services(self._services)}
        service, lines = str(command["service"]), int(command["lines"]) or _LINES
        return {"service": service, "lines": fetch_logs(self._services, service, lines)}


def list_services(services: Services) -> list[dict[str, Any]]:
    """One flat object for each service."""
    names = ("name", "running", "pid", "restarts", "version")
    return [{name: getattr(service, name) for name in names} for service in services.list()]


def fetch_logs(services: Services, service: str, lines: int) -> list[str]:
    """The newest lines, as many as fit into a reply. Raises PolicyError `unknown-service`."""
    if all(known.name != service for known in services.list()):
        raise PolicyError("unknown-service", f"this device has no service {service!a}"[:200])
    kept: list[str] = []
    size = 0
    for line in reversed(services.logs(service, lines)):
        size += len(strict_json.dumps(line)) + 1
        if size > _LOG_SIZE:
            break
        kept.append(line)
    return kept[::-1]


def refusal(identity: str, error: FleetError | OSError) -> Reply:
    """The reply to a command that could not be carried out."""
    code, detail = (error.code, error.detail) if isinstance(error, FleetError) else ("io", str(error))
    return Reply(id=identity, code=code, detail=detail[: limits.TEXT], result={})


def plain(health: Health) -> dict[str, Any]:
    """JSON members of a round of checks."""
    return {**asdict(health), "checks": [asdict(check) for check in health.checks]}
