"""The demo's release: a web service that says which version it is. Standard library only."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ABOUT = json.loads(Path(__file__).with_name("about.json").read_text(encoding="utf-8"))


class Page(BaseHTTPRequestHandler):
    """`/` says the version, `/health` says whether this version is well."""

    def do_GET(self) -> None:
        status = ABOUT["health"] if self.path == "/health" else 200
        body = json.dumps({"service": "hello-web", "version": ABOUT["version"], "status": status}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002 - the base's signature
        say(f"{self.path} {code}")


def say(text: str) -> None:
    """One line for the device's service log."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Page)
say(f"hello-web {ABOUT['version']} listens on {server.server_port}")
server.serve_forever()
