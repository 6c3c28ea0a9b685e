"""A real HTTP server on loopback that serves files well, or as badly as a test asks for."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Served:
    """One path: its bytes, and what is wrong with how they are served."""

    data: bytes = b""
    etag: str | None = '"1"'
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Added to the response, or in place of what it would say."""
    ranges: bool = True
    """Whether Range is understood."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body, once; then serve well."""
    then: Callable[["Served"], None] | None = None
    """Called once it is settled what the response is: changes the file for the next request."""
    drip_s: float | None = None
    """Wait so long before each byte."""
    chunked: bool = False
    bare: bool = False
    """No length at all: the end of the connection is the end of the body."""
    endless: bool = False
    drip_headers_s: float | None = None


class FileServer:
    """Paths to serve, and what was asked for."""

    def __init__(self) -> None:
        self.paths: dict[str, Served] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.ended = threading.Event()
        server = self

        class Handler(_Handler):
            files = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def url(self, path: str = "/artifact", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def serve(self, data: bytes, path: str = "/artifact", **how: Any) -> str:
        """Serve these bytes at a path; returns the address."""
        self.paths[path] = Served(data, **how)
        return self.url(path)

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each request so far."""
        return [headers.get("range") for _, headers in self.requests]

    def close(self) -> None:
        self.ended.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    files: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        self.close_connection = True
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.files.requests.append((self.path, headers))
        served = self.files.paths.get(self.path)
        with suppress(ConnectionError, TimeoutError):
            if served is None:
                self.send_error(404)
            else:
                self._serve(_taken(served), headers)

    def _serve(self, served: Served, headers: dict[str, str]) -> None:
        body, status, extra = self._part(served, headers)
        fields = {"Content-Type": "application/octet-stream", **extra}
        if served.etag is not None:
            fields["ETag"] = served.etag
        if served.chunked:
            fields["Transfer-Encoding"] = "chunked"
        elif not served.bare:
            fields["Content-Length"] = str(len(body))
        fields |= served.headers
        if served.drip_headers_s is not None:
            self._drip(b"HTTP/1.1 200 OK\r\n" + b"X-Slow: 1\r\n" * 10_000, served.drip_headers_s)
            return
        self.send_response(served.status or status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(served, body)

    def _part(self, served: Served, headers: dict[str, str]) -> tuple[bytes, int, dict[str, str]]:
        wanted = headers.get("range", "")
        same = headers.get("if-range", served.etag) == served.etag
        if not (served.ranges and wanted.startswith("bytes=") and same):
            return served.data, 200, {}
        start = int(wanted[6:].split("-")[0])
        if start >= len(served.data):
            return b"", 416, {"Content-Range": f"bytes */{len(served.data)}"}
        span = f"bytes {start}-{len(served.data) - 1}/{len(served.data)}"
        return served.data[start:], 206, {"Content-Range": span}

    def _send(self, served: Served, body: bytes) -> None:
        if served.cut_after is not None:
            self.wfile.write(body[: served.cut_after])
            self.connection.shutdown(socket.SHUT_RDWR)
        elif served.drip_s is not None:
            self._drip(body, served.drip_s)
        elif served.endless:
            while not self.files.ended.is_set():
                self._write(served, bytes(65_536))
        else:
            self._write(served, body)
            if served.chunked:
                self.wfile.write(b"0\r\n\r\n")

    def _write(self, served: Served, data: bytes) -> None:
        if served.chunked and data:
            data = b"%x\r\n" % len(data) + data + b"\r\n"
        self.wfile.write(data)

    def _drip(self, data: bytes, wait_s: float) -> None:
        for byte in data:
            if self.files.ended.wait(wait_s):
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()


def _taken(served: Served) -> Served:
    """What this response is. The next may be asked for before this one's thread comes to its end."""
    taken = replace(served)
    served.cut_after = None
    if served.then is not None:
        served.then(served)
    return taken


@contextmanager
def file_server() -> Iterator[FileServer]:
    """A server that ends with the block."""
    server = FileServer()
    try:
        yield server
    finally:
        server.close()
