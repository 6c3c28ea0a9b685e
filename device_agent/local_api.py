"""What the local HTTP offers, spoken to the loop: every request is put into the inbox and waits for its answer."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from device_agent.inbox import Inbox
from device_agent.local_request import Request, Response
from fleet_protocol import strict_json
from fleet_protocol.errors import CODES, Fault, FleetError, PolicyError
from fleet_protocol.ids import check_id

Respond = Callable[[Response], None]
_ANSWER_S: Final = 10.0
_VERDICT_S: Final = 60.0
_LINES_MOST: Final = 10_000
_ROUTES: Final = (
    "GET /health",
    "GET /agent/services",
    "GET /agent/logs/<service>?lines=100",
    "POST /agent/update",
    "POST /agent/rollback",
)
_STATUS: Final[Mapping[str, int]] = {"unknown-service": 404, "unauthorized": 403, "conflict": 409, "setup": 503}


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """What the loop does for a request; all are called by the loop."""

    health: Callable[[], Mapping[str, Any]]
    services: Callable[[], Mapping[str, Any]]
    logs: Callable[[str, int], Mapping[str, Any]]
    update: Callable[[bytes, Respond], None]
    rollback: Callable[[str | None, Respond], None]


class LocalApi:
    """`answer` is called by the HTTP's thread, one request at a time."""

    def __init__(self, inbox: Inbox, handlers: Handlers) -> None:
        self._inbox, self._handlers = inbox, handlers

    def answer(self, request: Request) -> Response:
        """The response; a request that the loop does not answer in time gets 202 (it may still act) or 503."""
        try:
            return self._route(request)
        except FleetError as error:
            return failure(error)

    def _route(self, request: Request) -> Response:
        target = urlsplit(request.path)
        path = target.path.rstrip("/")
        handlers = self._handlers
        if request.method == "POST":
            if path == "/agent/update":
                return self._ask(lambda respond: handlers.update(request.body, respond), _VERDICT_S)
            if path == "/agent/rollback":
                package = _package(request.body)
                return self._ask(lambda respond: handlers.rollback(package, respond), _VERDICT_S)
        elif not path:
            return Response(200, {"routes": list(_ROUTES)})
        elif path == "/health":
            return self._read(handlers.health)
        elif path == "/agent/services":
            return self._read(handlers.services)
        elif path.startswith("/agent/logs/"):
            service = check_id(unquote(path.removeprefix("/agent/logs/")), "service")
            lines = _lines(target.query)
            return self._read(lambda: handlers.logs(service, lines))
        return Response(
            404,
            {"code": "bad-request", "detail": f"there is no {request.method} {path[:100]}: GET / names what there is"},
        )

    def _read(self, read: Callable[[], Mapping[str, Any]]) -> Response:
        def ask(respond: Respond) -> None:
            try:
                respond(Response(200, read()))
            except FleetError as error:
                respond(failure(error))
            except OSError as error:
                respond(Response(503, {"code": "io", "detail": str(error)}))

        return self._ask(ask, _ANSWER_S)

    def _ask(self, ask: Callable[[Respond], None], wait_s: float) -> Response:
        answered = threading.Event()
        responses: list[Response] = []

        def respond(response: Response) -> None:
            responses.append(response)
            answered.set()

        self._inbox.put(lambda: ask(respond))
        if not answered.wait(wait_s):
            return Response(202, {"code": "offline", "detail": "no verdict yet; see /health"})
        return responses[0]


def failure(error: FleetError) -> Response:
    """The response to what could not be done: 4xx for the asker's fault, 503 for what may pass."""
    status = 503 if CODES[error.code].fault in (Fault.TRANSPORT, Fault.INSTALL) else _STATUS.get(error.code, 400)
    return Response(status, {"code": error.code, "detail": error.detail})


def _package(body: bytes) -> str | None:
    """The package of `{"package": name or null}`; nothing means all."""
    value = strict_json.loads(body, max_size=1024) if body.strip() else {}
    if not isinstance(value, dict) or not value.keys() <= {"package"}:
        raise PolicyError("bad-request", 'the body is not {"package": name}')
    package = value.get("package")
    if package is None:
        return None
    if not isinstance(package, str):
        raise PolicyError("bad-request", "package is a name or null")
    return check_id(package, "package")


def _lines(query: str) -> int:
    text = dict(parse_qsl(query)).get("lines", "100")
    if not text.isdecimal() or not 1 <= int(text[:9]) <= _LINES_MOST:
        raise PolicyError("bad-request", f"lines is a number from 1 to {_LINES_MOST}")
    return int(text)
