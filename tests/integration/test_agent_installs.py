"""From a retained manifest to a committed release: worker processes, real brokers, a real web service."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.agent_site import NODE, Site, running_site
from tests.fakes.brokers import BROKERS, RunningBroker
from tests.fakes.waiting import until


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningBroker]:
    with BROKERS[request.param](tmp_path) as broker:
        yield broker


@pytest.fixture
def site(tmp_path: Path, broker: RunningBroker) -> Iterator[Site]:
    with running_site(tmp_path / "agent", broker) as site:
        yield site


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
