"""From a retained manifest to a committed release: worker processes, real brokers, a real web service."""

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol.install import Install
from tests.fakes.agent_process import AgentProcess, ServerSide, running_agent
from tests.fakes.artifacts import packed
from tests.fakes.brokers import BROKERS, RunningBroker
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


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningBroker]:
    with BROKERS[request.param](tmp_path) as broker:
        yield broker


@pytest.fixture
def site(tmp_path: Path, broker: RunningBroker) -> Iterator[Site]:
    with reserved_port() as port:
        yield from _site(tmp_path, broker, port)


def _site(tmp_path: Path, broker: RunningBroker, port: int) -> Iterator[Site]:
    fleet, files = Fleet(), FileServer()
    settings = (
        "[intervals]\nheartbeat_s = 0.5\ntelemetry_s = 5\nhealth_s = 1\nreconnect_most_s = 0.2\nretry_most_s = 1\n"
        f'[variables]\nPORT = "{port}"\n'
    )
    server = ServerSide(broker, fleet)
    try:
        with running_agent(tmp_path / "agent", broker.url, fleet, settings=settings) as agent:
            site = Site(fleet, files, server, agent, port)
            site.add("1.0.0", 1)
            site.add("1.1.0", 2)
            site.add("2.0.0-bad", 3)
            fleet.publish()
            fleet.assignment()
            yield site
    finally:
        server.close()
        files.close()


def test_install_update_and_a_bad_release_that_is_rolled_back(site: Site) -> None:
    first = site.deploy("1.0.0")
    assert site.ended(first) == ("committed", None)
    assert site.answers() == "1.0.0"
    second = site.deploy("1.1.0")
    assert site.ended(second) == ("committed", None)
    assert site.answers() == "1.1.0"
    bad = site.deploy("2.0.0-bad")
    assert site.ended(bad) == ("rolled_back", "unhealthy")
    until(lambda: site.answers() == "1.1.0")
    until(lambda: site.state["version_web"] == "1.1.0" and site.state["stage"] == "idle")
    assert "failed before" in until(lambda: site.state["why"])
    services = json.loads(site.agent.command("status", "--json").stdout)
    assert services["installed"][0]["version"] == "1.1.0"
    checks = {check["name"]: check["verdict"] for check in services["checks"]}
    assert checks["service/web"] == "ok"


def test_a_recall_brings_the_release_before_back(site: Site) -> None:
    site.ended(site.deploy("1.0.0"))
    second = site.deploy("1.1.0", fallback="1.0.0")
    site.ended(second)
    site.deploy("1.1.0", fallback="1.0.0", state="recalled")
    until(lambda: site.answers() == "1.0.0", deadline_s=60)
    until(lambda: site.state.get("version_web") == "1.0.0" and site.state["stage"] == "idle", deadline_s=60)


def test_an_operators_rollback(site: Site) -> None:
    site.ended(site.deploy("1.0.0"))
    site.ended(site.deploy("1.1.0"))
    site.server.publish(site.fleet.command_topic, site.fleet.command("rollback", package="web"), retain=False)
    until(lambda: site.server.newest(NODE, "reply").get("code", "none yet") is None, deadline_s=60)
    until(lambda: site.answers() == "1.0.0", deadline_s=60)


def test_an_update_over_the_local_http_is_the_same_manifest(site: Site) -> None:
    site.ended(site.deploy("1.0.0"))
    rows = site.fleet.release("web", "1.1.0")
    urls = [site.files.url(f"/artifacts/{row.target.sha256}") for row in rows]
    deployment = site.fleet.deployment("web", "1.1.0", urls=urls, probation_s=1)
    manifest = site.fleet.manifest(deployment)
    port = int((site.agent.state_dir / "http.port").read_text())
    token = (site.agent.state_dir / "http.token").read_text()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    connection.request("POST", "/agent/update", manifest, {"X-Fairlead-Token": token})
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (200, None)
    connection.close()
    assert site.ended(deployment.id) == ("committed", None)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/agent/logs/web?lines=5")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_killed_agent_finishes_what_it_began(site: Site) -> None:
    site.ended(site.deploy("1.0.0"))
    second = site.deploy("1.1.0", probation_s=3)
    for stage in ("downloading", "probation"):
        until(lambda stage=stage: site.state.get("stage") == stage or site.outcome(second), deadline_s=60)
        site.agent.kill()
        site.agent.start()
    assert site.ended(second) == ("committed", None)
    assert site.answers() == "1.1.0"


def test_a_killed_broker_in_the_middle_of_an_update(site: Site, broker: RunningBroker) -> None:
    site.ended(site.deploy("1.0.0"))
    second = site.deploy("1.1.0", probation_s=5)
    until(lambda: site.state.get("stage") == "probation", deadline_s=60)
    broker.kill()
    broker.restart()
    site.server.reconnected()
    site.server.publish_all()
    until(lambda: site.state.get("version_web") == "1.1.0", deadline_s=60)
    assert site.answers() == "1.1.0"
    assert site.outcome(second) in (("committed", None), None)
