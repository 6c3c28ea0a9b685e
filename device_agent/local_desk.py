"""What somebody on the device itself asks of the agent, through the local HTTP."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from device_agent.announcer import Announcer
from device_agent.clock import Clock
from device_agent.commands import fetch_logs, list_services, plain
from device_agent.core.events import Commanded, Event
from device_agent.core.record import Record
from device_agent.core.reports import installed
from device_agent.documents import DocumentDesk
from device_agent.local_api import Handlers, Respond
from device_agent.local_request import Response
from device_agent.ports import Link, Services
from device_agent.settings import AgentSettings
from fleet_protocol import topics
from fleet_protocol.messages import Reply

_LOCAL: Final = "local-"


class LocalDesk:
    """Used by the loop only."""

    def __init__(
        self,
        settings: AgentSettings,
        services: Services,
        link: Link,
        *,
        announcer: Announcer,
        documents: DocumentDesk,
        record: Callable[[], Record],
        event: Callable[[Event], bool],
        clock: Clock,
    ) -> None:
        self._settings, self._services, self._link, self._clock = settings, services, link, clock
        self._announcer, self._documents, self._record, self._event = announcer, documents, record, event
        self._waiting: dict[str, Respond] = {}
        self._asked = 0

    def handlers(self) -> Handlers:
        """What the local HTTP may ask."""
        return Handlers(
            health=self._health,
            services=lambda: {"services": list_services(self._services)},
            logs=lambda service, lines: {"service": service, "lines": fetch_logs(self._services, service, lines)},
            update=self._update,
            rollback=self._rollback,
        )

    def take_reply(self, reply: Reply) -> bool:
        """Whether the reply was for somebody here; he has it then."""
        respond = self._waiting.pop(reply.id, None)
        if respond is not None:
            respond(Response(200 if reply.code is None else 409, asdict(reply)))
        return reply.id.startswith(_LOCAL)

    def _health(self) -> Mapping[str, Any]:
        health, record = plain(self._announcer.health()), self._record()
        return {
            "status": "ok" if health["verdict"] in ("ok", "unknown") else "degraded",
            "device": self._settings.device,
            "group": record.group,
            "sequence": record.obeyed,
            "stage": record.stage,
            "why": record.why,
            "broker": {"url": self._settings.broker.url, "connected": self._link.connected},
            "installed": [asdict(one) for one in installed(record)],
            "attacks": dict(record.attacks),
            "checks": health["checks"],
        }

    def _update(self, payload: bytes, respond: Respond) -> None:
        group = self._record().group
        if group is None:
            respond(Response(409, {"code": "wrong-state", "detail": self._record().why}))
            return
        if not payload:
            respond(Response(400, {"code": "bad-request", "detail": "the body is a manifest envelope"}))
            return

        def judged(code: str | None, detail: str) -> None:
            value = {"code": code, "detail": detail, "sequence": self._record().obeyed}
            respond(Response(200 if code is None else 400, value))

        self._documents.hand_in(self._settings.topics.of(topics.MANIFEST, group=group), payload, judged)

    def _rollback(self, package: str | None, respond: Respond) -> None:
        self._asked += 1
        identity = f"{_LOCAL}{int(self._clock.wall_s() * 1000)}-{self._asked}"
        self._waiting[identity] = respond
        self._event(Commanded(at=self._clock.moment(), id=identity, name="rollback", package=package))
