"""A fleet whose only package is a web service, on one agent that is a real process."""

import http.client
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fleet_protocol.install import Install
from tests.fakes.agent_process import AgentProcess, ServerSide, running_agent
from tests.fakes.artifacts import packed
from tests.fakes.brokers import RunningBroker
from tests.fakes.http_server import FileServer
from tests.fakes.ports import reserved_port
from tests.fakes.trust_fleet import Fleet, http_check
from tests.fakes.waiting import until

NODE = "node-1"
PROGRAM = """
import http.server, pathlib, sys
version = pathlib.Path("version").read_text()

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        well = self.path != "/health" or "bad" not in version
        self.send_response(200 if well else 500)
        self.end_headers()
        self.wfile.write(version.encode())

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""


class Site:
    """A fleet whose only package is a web service, its artifacts, and one agent."""

    def __init__(self, fleet: Fleet, files: FileServer, server: ServerSide, agent: AgentProcess, port: int) -> None:
        self.fleet, self.files, self.server, self.agent, self.port = fleet, files, server, agent, port

    def add(self, version: str, counter: int) -> None:
        """Pack a release and list it in the catalogue."""
        artifact = packed({"web.py": PROGRAM.encode(), "version": version.encode()})
        target = self.fleet.add_release(
            "web",
            version,
            counter,
            data=artifact.data,
            kind="service",
            format="tar.zst",
            install=Install(exec=(sys.executable, "web.py", "${PORT}"), stop_s=5, check=http_check()),
            unpacked_size=artifact.unpacked_size,
            unpacked_files=artifact.unpacked_files,
        )
        self.files.serve(artifact.data, f"/artifacts/{target.sha256}")

    def deploy(self, version: str, **more: Any) -> str:
        """Publish a manifest with this release; returns the deployment's id."""
        rows = self.fleet.release("web", version)
        urls = [self.files.url(f"/artifacts/{row.target.sha256}") for row in rows]
        deployment = self.fleet.deployment("web", version, urls=urls, **{"probation_s": 2, **more})
        self.fleet.manifest(deployment)
        self.server.publish_all()
        return deployment.id

    def answers(self) -> str | None:
        """What the service says, if it runs."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except OSError:
            return None
        finally:
            connection.close()

    def outcome(self, deployment: str) -> tuple[str, str | None] | None:
        """How the attempt at the deployment ended, by the device's report."""
        for report in reversed(self.server.reports(NODE)):
            attempt = report["attempt"]
            if attempt and attempt["deployment"] == deployment and attempt["outcome"]:
                return attempt["outcome"], attempt["code"]
        return None

    def ended(self, deployment: str) -> tuple[str, str | None]:
        ended = until(lambda: self.outcome(deployment), deadline_s=90)
        assert ended is not None
        return ended

    @property
    def state(self) -> Any:
        return self.server.newest(NODE, "state")


@contextmanager
def running_site(directory: Path, broker: RunningBroker, **more: Any) -> Iterator[Site]:
    """Two good releases and a bad one in the catalogue, and the agent assigned; nothing is left of it afterwards."""
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        fleet, files = Fleet(), FileServer()
        stack.callback(files.close)
        settings = (
            "[intervals]\nheartbeat_s = 0.5\ntelemetry_s = 5\nhealth_s = 1\nreconnect_most_s = 0.2\nretry_most_s = 1\n"
            f'[variables]\nPORT = "{port}"\n'
        )
        server = ServerSide(broker, fleet)
        stack.callback(server.close)
        agent = stack.enter_context(running_agent(directory, broker.url, fleet, settings=settings, **more))
        site = Site(fleet, files, server, agent, port)
        site.add("1.0.0", 1)
        site.add("1.1.0", 2)
        site.add("2.0.0-bad", 3)
        fleet.publish()
        fleet.assignment()
        yield site
