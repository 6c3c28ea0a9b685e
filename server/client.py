"""The REST API from the outside: what the CLI and the demo speak."""

import email.utils
import ssl
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from fleet_protocol.ids import is_id, shown
from server import answers

_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
_UPLOAD: Final = httpx.Timeout(600.0, connect=10.0)
"""The server hashes and writes a whole artifact before it answers."""
_BLOCK: Final = 1024 * 1024
T = TypeVar("T")


class ClientError(Exception):
    """The server said no, or could not be asked. `status` is None where there was no answer at all."""

    def __init__(self, code: str, detail: str, *, status: int | None) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.detail = detail
        self.status = status


class Client:
    """One server and one token. Every call returns the answer's JSON or raises ClientError.

    The named calls check that the answer has its documented form (`answers.py`); `get`, `post` and `put`
    return whatever the server says.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        ca_file: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`ca_file` is trusted for https:// in place of the public authorities."""
        self.url = _checked_url(url)
        self._http = httpx.Client(
            base_url=self.url,
            headers=_authorization(token),
            timeout=_TIMEOUT,
            transport=transport,
            verify=_trust(ca_file),
            trust_env=not is_local(self.url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int | None) -> Any:
        """Read a resource."""
        return self._ask("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask for a change; `body` travels as JSON."""
        return self._ask("POST", path, json=dict(body or {}))

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Set a resource; `body` travels as JSON."""
        return self._ask("PUT", path, json=dict(body))

    def put_file(self, path: str, file: Path) -> Any:
        """Upload a file as it is, in blocks of 1 MiB."""
        headers = {"Content-Length": str(file.stat().st_size), "Content-Type": "application/octet-stream"}
        return self._ask("PUT", path, content=_blocks(file), headers=headers, timeout=_UPLOAD)

    def delete(self, path: str) -> Any:
        """Remove a resource."""
        return self._ask("DELETE", path)

    def has(self, path: str) -> bool:
        """Whether a resource exists."""
        try:
            self._ask("HEAD", path)
        except ClientError as error:
            if error.status == 404:
                return False
            raise
        return True

    def health(self) -> answers.Health:
        """How the server is; needs no token."""
        return self._formed(answers.Health, self.get("/health"))

    def clock_s(self) -> float | None:
        """The server's clock in epoch seconds, whole ones, as its answers are dated; None where they are not."""
        date = self._send("GET", "/health").headers.get("date", "")
        try:
            return email.utils.parsedate_to_datetime(date).timestamp()
        except ValueError:
            return None

    def nodes(self, group: str | None = None) -> answers.Nodes:
        """Enrolled devices, of one group or all."""
        return self._formed(answers.Nodes, self.get("/api/nodes", group=group))

    def node(self, node: str) -> answers.NodeDetail:
        """One device, with what it reported about its deployments."""
        return self._formed(answers.NodeDetail, self.get(f"/api/nodes/{_part(node)}"))

    def enrol(self, node: str, group: str, device_class: str, public_key: Mapping[str, Any]) -> answers.Node:
        """Register a device; the same key again is the same device."""
        body = {"id": node, "group": group, "class": device_class, "public_key": dict(public_key)}
        return self._formed(answers.Node, self.post("/api/nodes/register", body))

    def services(self, node: str) -> answers.Services:
        """Ask a device for its services."""
        return self._formed(answers.Services, self.get(f"/api/nodes/{_part(node)}/services"))

    def logs(self, node: str, service: str, lines: int) -> answers.Logs:
        """Ask a device for the newest log lines of a service."""
        path = f"/api/nodes/{_part(node)}/logs/{_part(service)}"
        return self._formed(answers.Logs, self.get(path, lines=lines))

    def command(self, node: str, name: str, package: str | None) -> Any:
        """Order one device to `rollback` or `retry`, one package or all; the device's reply."""
        return self.post(f"/api/nodes/{_part(node)}/{name}", {} if package is None else {"package": package})

    def move(self, node: str, group: str) -> Any:
        """Assign a device to another group."""
        return self.put(f"/api/nodes/{_part(node)}/group", {"group": group})

    def remove(self, node: str) -> answers.Node:
        """Forget a device, so that what it sends is refused from then on; what was known of it."""
        return self._formed(answers.Node, self.delete(f"/api/nodes/{_part(node)}"))

    def health_checks(self, nodes: list[str], group: str | None) -> answers.HealthChecks:
        """Ask devices to check their health now: those named, or a group, or all."""
        body = {"target_nodes": nodes or None, "group": group}
        given = {name: value for name, value in body.items() if value is not None}
        return self._formed(answers.HealthChecks, self.post("/api/health-checks", given))

    def groups(self) -> answers.Groups:
        """All groups."""
        return self._formed(answers.Groups, self.get("/api/groups"))

    def releases(self) -> answers.Releases:
        """What the signed catalogue allows to be installed."""
        return self._formed(answers.Releases, self.get("/api/releases"))

    def publish(self, body: Mapping[str, Any]) -> answers.Job:
        """Start an update (`POST /api/updates`)."""
        return self._formed(answers.Job, self.post("/api/updates", body))

    def jobs(self, state: str | None = None, group: str | None = None) -> answers.Jobs:
        """Updates, by state and group or all."""
        return self._formed(answers.Jobs, self.get("/api/updates", state=state, group=group))

    def job(self, job_id: str) -> answers.Job:
        """One update."""
        return self._formed(answers.Job, self.get(f"/api/updates/{_part(job_id)}"))

    def steer(self, job_id: str, verb: str, reason: str) -> answers.Job:
        """Hold, resume, advance, recall or retry an update."""
        path = f"/api/updates/{_part(job_id)}/{verb}"
        return self._formed(answers.Job, self.post(path, {"reason": reason} if reason else {}))

    def audit(self, most: int) -> answers.Audit:
        """Who did what, the newest first."""
        return self._formed(answers.Audit, self.get("/api/audit", most=most))

    def upload_catalogue(self, roots: list[Any], targets: Any) -> answers.Uploaded:
        """Replace the catalogue by newer signed documents."""
        return self._formed(answers.Uploaded, self.post("/api/catalogue", {"root": roots, "targets": targets}))

    def _formed(self, kind: type[T], body: Any) -> T:
        wrong = answers.misfit(kind, body)
        if wrong is not None:
            detail = f"{self.url} answered something else than documented ({wrong}); is it a Fairlead server, as new?"
            raise ClientError("refused", detail, status=200)
        formed: T = body
        return formed

    def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        answer = self._send(method, path, **arguments)
        if not answer.content:
            return {}
        try:
            return answer.json()
        except ValueError:
            raise self._stranger(answer) from None

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.TimeoutException:
            raise ClientError("timeout", f"the server at {self.url} did not answer in time", status=None) from None
        except httpx.ConnectError as error:
            detail = f"no server answers at {self.url}: {error}. Is `fairlead serve` running?"
            raise ClientError("unreachable", detail, status=None) from None
        except ValueError as error:
            raise ClientError("bad-request", f"this can not be asked in JSON: {error}", status=None) from None
        except httpx.HTTPError as error:
            detail = f"the connection to {self.url} broke: {error or type(error).__name__}"
            raise ClientError("unreachable", detail, status=None) from None
        if answer.is_success:
            return answer
        raise self._refusal(answer)

    def _refusal(self, answer: httpx.Response) -> ClientError:
        if answer.status_code == 401:
            given = "another API token than this" if "Authorization" in self._http.headers else "an API token"
            where = "--token TOKEN or @FILE, FAIRLEAD_TOKEN; it stands in the file token of the server's data directory"
            return ClientError("unauthorized", f"{self.url} wants {given}: {where}", status=401)
        try:
            body = answer.json()
            return ClientError(str(body["code"]), str(body["detail"]), status=answer.status_code)
        except (ValueError, KeyError, TypeError):
            return self._stranger(answer)

    def _stranger(self, answer: httpx.Response) -> ClientError:
        detail = (
            f"{self.url} answered {answer.status_code} {answer.reason_phrase} without JSON; is it a Fairlead server?"
        )
        return ClientError("refused", detail, status=answer.status_code)


def is_local(url: str) -> bool:
    """Whether an address names this machine; a local token goes there only, and no proxy lies between."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        good = False
    if not good:
        detail = f"{url!r} is not a server's address, such as http://127.0.0.1:8080"
        raise ClientError("bad-request", detail, status=None)
    return url.rstrip("/")


def _authorization(token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise ClientError("unauthorized", "a token is one word of printable ASCII", status=None)
    return {"Authorization": f"Bearer {token}"}


def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ClientError("setup", f"{ca_file} is not a file of certificates (PEM): {error}", status=None) from None


def _part(name: str) -> str:
    """One segment of a path: an id, or ClientError `bad-request`."""
    if not is_id(name):
        raise ClientError("bad-request", f"{shown(name)} is no name: [a-z0-9][a-z0-9_-]{{0,63}}", status=None)
    return name


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
