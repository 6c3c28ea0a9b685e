"""The local HTTP: who is let in, what is bounded, and what the loop is asked."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.adapters.local_http import BODY_SIZE, LocalHttp
from device_agent.inbox import Inbox
from device_agent.local_api import Handlers, LocalApi, Respond
from device_agent.local_request import Request, Response
from fleet_protocol.errors import PolicyError
from tests.fakes.agent_ports import quiet_log


class Seen:
    def __init__(self) -> None:
        self.requests: list[Request] = []

    def answer(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(200, {"path": request.path})


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def http(tmp_path: Path, seen: Seen) -> Iterator[LocalHttp]:
    server = LocalHttp(0, tmp_path, seen.answer, quiet_log())
    server.start()
    yield server
    server.stop()
    assert not (tmp_path / "http.port").exists()


def _send(http: LocalHttp, raw: bytes) -> tuple[int, Any]:
    with socket.create_connection(("127.0.0.1", http.port), timeout=20) as client:
        client.sendall(raw)
        data = b""
        while part := client.recv(65_536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def _request(http: LocalHttp, line: str, *headers: str, body: bytes = b"", host: str | None = None) -> tuple[int, Any]:
    lines = [f"{line} HTTP/1.1", f"Host: {host or f'127.0.0.1:{http.port}'}", *headers, "", ""]
    return _send(http, "\r\n".join(lines).encode() + body)


def _token(tmp_path: Path) -> str:
    return f"X-Fairlead-Token: {(tmp_path / 'http.token').read_text()}"


def test_get(http: LocalHttp, tmp_path: Path) -> None:
    assert _request(http, "GET /health") == (200, {"path": "/health"})
    assert _request(http, "GET /health", host=f"localhost:{http.port}")[0] == 200
    assert (tmp_path / "http.port").read_text() == str(http.port)
    assert (tmp_path / "http.token").stat().st_mode & 0o777 == 0o600


def test_rule_1_another_host_is_refused(http: LocalHttp, seen: Seen) -> None:
    for host in ("evil.example", f"evil.example:{http.port}", "127.0.0.1", f"127.0.0.1:{http.port}.evil.example"):
        assert _request(http, "GET /health", host=host)[0] == 403
    assert _send(http, b"GET /health HTTP/1.1\r\n\r\n")[0] == 403
    assert seen.requests == []


def test_rule_2_a_post_needs_the_token(http: LocalHttp, seen: Seen, tmp_path: Path) -> None:
    assert _request(http, "POST /agent/rollback")[0] == 403
    assert _request(http, "POST /agent/rollback", "X-Fairlead-Token: x")[0] == 403
    assert seen.requests == []
    status, _ = _request(http, "POST /agent/update", _token(tmp_path), "Content-Length: 2", body=b"{}")
    assert status == 200
    assert seen.requests[0].body == b"{}"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /health\r\n\r\n", 400),
        (b"GET /health HTTP/2\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nfolded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 9_000, 413),
        (b"DELETE / HTTP/1.1\r\nHost: HOST\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nContent-Length: %d\r\n\r\n" % (BODY_SIZE + 1), 413),
    ],
)
def test_rule_3_bad_requests(http: LocalHttp, seen: Seen, raw: bytes, status: int) -> None:
    answered, value = _send(http, raw.replace(b"HOST", b"127.0.0.1:%d" % http.port))
    assert answered == status
    assert value.keys() == {"code", "detail"}
    assert seen.requests == []
    assert _request(http, "GET /health")[0] == 200


def test_rule_3_a_client_that_goes_away_or_stays_silent(http: LocalHttp) -> None:
    with socket.create_connection(("127.0.0.1", http.port)) as client:
        client.sendall(b"GET /heal")
    assert _request(http, "GET /health")[0] == 200
    with socket.create_connection(("127.0.0.1", http.port)):
        assert _request(http, "GET /health")[0] == 200


def test_a_taken_port_is_one_line(http: LocalHttp, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"choose another \[http\] port"):
        LocalHttp(http.port, tmp_path, lambda request: Response(200, {}), quiet_log())


def _api(**changed: Any) -> LocalApi:
    """An API whose loop answers at once."""

    class Prompt(Inbox):
        def put(self, happening: Any) -> None:
            happening()

    def update(body: bytes, respond: Respond) -> None:
        respond(Response(200, {"body": body.decode()}))

    def rollback(package: str | None, respond: Respond) -> None:
        respond(Response(200, {"package": package}))

    parts: dict[str, Any] = {
        "health": lambda: {"status": "ok"},
        "services": lambda: {"services": []},
        "logs": lambda service, lines: {"service": service, "lines": [lines]},
        "update": update,
        "rollback": rollback,
    }
    return LocalApi(Prompt(), Handlers(**(parts | changed)))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "value"),
    [
        ("GET", "/health", b"", 200, {"status": "ok"}),
        ("GET", "/agent/services", b"", 200, {"services": []}),
        ("GET", "/agent/logs/web?lines=7", b"", 200, {"service": "web", "lines": [7]}),
        ("GET", "/agent/logs/web", b"", 200, {"service": "web", "lines": [100]}),
        ("POST", "/agent/update", b"{}", 200, {"body": "{}"}),
        ("POST", "/agent/rollback", b'{"package": "web"}', 200, {"package": "web"}),
        ("POST", "/agent/rollback", b"", 200, {"package": None}),
    ],
)
def test_routes(method: str, path: str, body: bytes, status: int, value: Any) -> None:
    assert _api().answer(Request(method, path, body)) == Response(status, value)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/", b"", 404),
        ("GET", "/nothing", b"", 404),
        ("POST", "/health", b"", 404),
        ("GET", "/agent/update", b"", 404),
        ("GET", "/agent/logs/..%2f..%2fetc", b"", 400),
        ("GET", "/agent/logs/web?lines=0", b"", 400),
        ("GET", "/agent/logs/web?lines=x", b"", 400),
        ("POST", "/agent/rollback", b"[]", 400),
        ("POST", "/agent/rollback", b'{"package": "../x"}', 400),
        ("POST", "/agent/rollback", b'{"package": 1}', 400),
        ("POST", "/agent/rollback", b'{"other": 1}', 400),
        ("POST", "/agent/rollback", b"nonsense", 400),
    ],
)
def test_bad_questions(method: str, path: str, body: bytes, status: int) -> None:
    response = _api().answer(Request(method, path, body))
    assert response.status == status
    assert response.value.keys() == {"code", "detail"}


def test_the_front_names_every_route() -> None:
    response = _api().answer(Request("GET", "/", b""))
    assert (response.status, response.value.keys()) == (200, {"routes"})
    for route in response.value["routes"]:
        method, path = route.replace("<service>", "web").split()
        assert _api().answer(Request(method, path, b"")).status == 200, route
    assert len(response.value["routes"]) == len({"health", "services", "logs", "update", "rollback"})


def test_what_the_loop_can_not_do() -> None:
    def fail(*_: Any) -> Any:
        raise PolicyError("unknown-service", "no such")

    assert _api(logs=fail).answer(Request("GET", "/agent/logs/web", b"")).status == 404

    def broken() -> Any:
        raise OSError("disk")

    assert _api(services=broken).answer(Request("GET", "/agent/services", b"")).status == 503
