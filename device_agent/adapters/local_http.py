"""The local HTTP of the agent: a few JSON requests on 127.0.0.1, one at a time.

1. It listens on the loopback address only, and answers only requests that were addressed to it by that address or
   `localhost`: a page in a browser on the device can not reach it through a name of its own (DNS rebinding).
2. Whatever changes anything needs the token of a file that only the agent's user can read, in a header that no form
   or image of a web page can set.
3. A request is bounded in size and time; a bad one gets its status and one JSON object `{"code", "detail"}`.

HTTP/1.1 (RFC 9112) as far as this needs it, written out: the standard library's server would take a fifth of the
resident's memory.
"""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from device_agent.adapters.files import write_atomic
from device_agent.local_request import Request, Response
from device_agent.log import Log, of_a_file
from fleet_protocol import limits, strict_json
from fleet_protocol.errors import PolicyError

ADDRESS: Final = "127.0.0.1"
TOKEN_HEADER: Final = "x-fairlead-token"  # noqa: S105 - the header's name, not a token
_HEAD_SIZE: Final = 8 * 1024
BODY_SIZE: Final = limits.MANIFEST_SIZE
_REQUEST_S: Final = 3.0
_REASONS: Final[Mapping[int, str]] = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    503: "Service Unavailable",
}


class _BadRequestError(Exception):
    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.response = Response(status, {"code": code, "detail": detail})


class LocalHttp:
    """Serves in one thread of its own; `answer` is called in it."""

    def __init__(self, port: int, state_dir: Path, answer: Callable[[Request], Response], log: Log) -> None:
        self._answer, self._log = answer, log
        self._state_dir = state_dir
        self._token = os.urandom(24).hex()
        self._listener = _listen(port)
        self.port: int = self._listener.getsockname()[1]
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Write `http.port` and `http.token`, and serve until `stop`; on a full disk without them."""
        try:
            self._unlink()  # what an agent that was killed has left is wrong, and takes their room
            write_atomic(self._state_dir / "http.token", self._token.encode(), durable=False)
            write_atomic(self._state_dir / "http.port", str(self.port).encode(), durable=False)
        except OSError as error:
            self._log.error("http", f"port and token can not be written: {of_a_file(error)}")
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests; the one under way is finished."""
        self._stopping = True
        self._listener.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join(_REQUEST_S + 1.0)
        self._listener.close()
        self._unlink()

    def _unlink(self) -> None:
        for name in ("http.port", "http.token"):
            (self._state_dir / name).unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if not self._stopping:
                    self._log.warning("http", f"{error}")
                    time.sleep(1.0)  # out of descriptors: let some come back
                continue
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            try:
                response = self._answer(self._read(connection))
            except _BadRequestError as error:
                response = error.response
            connection.settimeout(_REQUEST_S)
            connection.sendall(_encode(response))
            connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._log.info("http", f"a request ended early: {error}")

    def _read(self, connection: socket.socket) -> Request:
        until_s = time.monotonic() + _REQUEST_S
        head, rest = _read_head(connection, until_s)
        method, path, headers = _parse_head(head)
        self._admit(method, headers)
        length = _body_length(headers)
        while len(rest) < length:
            rest += _receive(connection, until_s, length - len(rest))
        return Request(method, path, rest[:length])

    def _admit(self, method: str, headers: Mapping[str, str]) -> None:
        """Rules 1 and 2."""
        if headers.get("host", "") not in (f"{ADDRESS}:{self.port}", f"localhost:{self.port}"):
            raise _BadRequestError(403, "unauthorized", f"Host must be {ADDRESS}:{self.port}")
        if method not in ("GET", "POST"):
            raise _BadRequestError(405, "bad-request", "only GET and POST are served")
        given = headers.get(TOKEN_HEADER, "")
        if method == "POST" and _digest(given) != _digest(self._token):
            raise _BadRequestError(403, "unauthorized", f"the header {TOKEN_HEADER} must hold the text of http.token")


def _digest(token: str) -> bytes:
    """Digests are compared, for how long that takes tells nothing of the token (and `hmac` would load OpenSSL)."""
    return hashlib.sha256(token.encode()).digest()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
        listener.listen(8)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise PolicyError("setup", f"{ADDRESS}:{port}: {reason}; choose another [http] port") from None
    return listener


def _receive(connection: socket.socket, until_s: float, most: int) -> bytes:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise _BadRequestError(408, "bad-request", "the request took too long")
    connection.settimeout(left_s)
    try:
        data = connection.recv(min(most, 16 * 1024))
    except TimeoutError:
        raise _BadRequestError(408, "bad-request", "the request took too long") from None
    if not data:
        raise ConnectionAbortedError("the client closed")
    return data


def _read_head(connection: socket.socket, until_s: float) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > _HEAD_SIZE:
            raise _BadRequestError(413, "bad-request", "the header is too long")
        data += _receive(connection, until_s, _HEAD_SIZE + 1 - len(data) + 1)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _parse_head(head: bytes) -> tuple[str, str, Mapping[str, str]]:
    """Method, path and headers by lower-case name; one that stands twice is refused, for two readers may disagree."""
    try:
        lines = head.decode("ascii").split("\r\n")
        method, target, version = lines[0].split(" ")
    except (UnicodeDecodeError, ValueError):
        raise _BadRequestError(400, "bad-request", "not an HTTP request") from None
    if not version.startswith("HTTP/1.") or not target.startswith("/"):
        raise _BadRequestError(400, "bad-request", "not an HTTP/1 request")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip() or name.lower() in headers:
            raise _BadRequestError(400, "bad-request", "a header is malformed or stands twice")
        headers[name.lower()] = value.strip()
    return method, target, headers


def _body_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise _BadRequestError(411, "bad-request", "send a Content-Length")
    text = headers.get("content-length", "0")
    if not text.isdecimal() or len(text) > 9:
        raise _BadRequestError(400, "bad-request", "Content-Length is not a number")
    if int(text) > BODY_SIZE:
        raise _BadRequestError(413, "size", f"at most {BODY_SIZE} bytes are taken")
    return int(text)


def _encode(response: Response) -> bytes:
    body = strict_json.dumps(response.value) + b"\n"
    head = (
        f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Error')}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
