"""The other side of a download: a web server in a process of its own that knows Range."""

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    """Serves the files of the working directory, from where the client wants."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with Path(self.path.lstrip("/")).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            self.send_header("Content-Length", str(size - start))
            self.end_headers()
            file.seek(start)
            with suppress(ConnectionError):
                shutil.copyfileobj(file, self.wfile, 1 << 20)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing."""


@contextmanager
def serving(root: Path) -> Iterator[tuple[int, int]]:
    """The port and the process id of a web server for what lies in `root`."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(str(root), sending), daemon=True)
    server.start()
    assert server.pid is not None
    try:
        yield receiving.recv(), server.pid
    finally:
        server.kill()
        server.join()


def _serve(root: str, ports: Any) -> None:
    os.chdir(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    ports.send(server.server_address[1])
    server.serve_forever()
