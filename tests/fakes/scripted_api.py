"""A real HTTP server that answers as a test says, and remembers what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer. `body` is JSON unless it is bytes."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    body: Any
    token: str | None


class ScriptedApi:
    """Answers by `METHOD /path?query`; of several answers the last is repeated."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self._answers: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()

    def says(self, request: str, *answers: Any) -> None:
        """What a request gets, one after the other; anything that is no Answer is the JSON of a 200."""
        self._answers[request] = [answer if isinstance(answer, Answer) else Answer(answer) for answer in answers]

    def answer(self, asked: Asked) -> Answer:
        """The next answer to a request; 404 for what the test did not write."""
        with self._lock:
            self.asked.append(asked)
            script = self._answers.get(f"{asked.method} {asked.path}")
            if script is None:
                return refusal(404, "bad-request", f"the test has no answer to {asked.method} {asked.path}")
            return script.pop(0) if len(script) > 1 else script[0]


def refusal(status: int, code: str, detail: str) -> Answer:
    """An error as the server words them."""
    return Answer({"code": code, "detail": detail}, status)


@contextmanager
def scripted_api() -> Iterator[ScriptedApi]:
    """A server on a port of the kernel's choosing, ended with the block."""
    api = ScriptedApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                body = json.loads(data) if data else None
            except ValueError:
                body = data
            answer = api.answer(Asked(self.command, self.path, body, self.headers.get("Authorization")))
            sent = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    for method in ("DELETE", "GET", "POST", "PUT", "HEAD"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def node(name: str = "node-1", **other: Any) -> dict[str, Any]:
    """A device as the API tells of it."""
    return {
        "id": name,
        "group": "line-1",
        "class": "x86_64",
        "available": True,
        "enrolled": 1.0,
        "seen": None,
        "stage": "idle",
        "why": "up to date",
        "sequence": 3,
        "installed": [{"package": "web", "version": "1.0.0", "counter": 1, "deployment": "d-1"}],
        "attack": None,
        "attacks": {},
        "telemetry": None,
        "health": None,
    } | other


def job(state: str = "active", **other: Any) -> dict[str, Any]:
    """An update as the API tells of it."""
    counts = {"devices": 4, "selected": 2, "committed": 1, "failed": 0, "withdrawn": 0}
    counts |= {"in_progress": 1, "silent": 0, "waiting": 2}
    return {
        "job_id": "d-1",
        "group": "line-1",
        "update_type": "service",
        "package": "web",
        "version": "1.1.0",
        "counter": 2,
        "state": state,
        "superseded": False,
        "wave": 0,
        "waves": [
            {"share": 50.0, "devices": ["node-1"], "open": True, "selected": 2},
            {"share": 100.0, "devices": [], "open": False, "selected": 4},
        ],
        "reason": "",
        "description": "",
        "created": 1_700_000_000.0,
        "expires": None,
        "counts": counts | other.pop("counts", {}),
        "failures": [],
    } | other


def health(**other: Any) -> dict[str, Any]:
    """The server as it tells of itself."""
    return {
        "status": "ok",
        "version": "0.1.0",
        "broker": {"connected": True, "url": "mqtt://broker.example:1883"},
        "devices": {"total": 1, "available": 1},
        "rollouts": {"active": 1},
        "signing": "online",
        "uptime_s": 5.0,
        "problems": [],
    } | other
