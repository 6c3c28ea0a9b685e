"""A release that is tried on one device and then published to its group, with a server and real agents."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from server.app import Server
from tests.fakes.agent_process import AgentProcess, running_agent
from tests.fakes.running_server import CLASS, FLEET, GROUP, Desk, Json, checked, running, settings_for
from tests.fakes.waiting import until

NODES = ("node-1", "node-2", "node-3")
PATIENCE_S = 120.0
"""Only bounds a hang; nothing is asserted about time."""
Publish = Callable[..., str]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.export(tmp_path / "server")
    desk.pack("notes", "1.0.0", 1)
    desk.pack("notes", "1.1.0", 2)
    return desk


@pytest.fixture
def client(tmp_path: Path, desk: Desk) -> Iterator[httpx.Client]:
    """A server and three devices that run 1.0.0."""
    with running(settings_for(tmp_path / "server")) as (server, client), ExitStack() as agents:
        desk.upload(client)
        for name in NODES:
            agents.enter_context(enrolled(tmp_path / name, name, desk, server, client))
        job = publish(client, "1.0.0", group=GROUP, waves=[{"share": 100}])
        assert ended(client, job)["counts"]["committed"] == 3
        yield client


def enrolled(folder: Path, name: str, desk: Desk, server: Server, client: httpx.Client) -> Any:
    trust: Any = SimpleNamespace(device=name, fleet=FLEET, device_class=CLASS, first_root=desk.fleet.roots()[0].data)
    key = AgentProcess(folder, server.broker_url, trust).init()
    body = {"id": name, "group": GROUP, "class": CLASS, "public_key": key}
    checked(client.post("/api/nodes/register", json=body))
    return running_agent(folder, server.broker_url, trust)


def publish(client: httpx.Client, version: str, **audience: Any) -> str:
    body = {"package_name": "notes", "package_version": version, "soak_s": 0, "probation_s": 0, **audience}
    return str(checked(client.post("/api/updates", json=body))["job_id"])


def ended(client: httpx.Client, job: str) -> Json:
    def state() -> Json:
        return checked(client.get(f"/api/updates/{job}"))

    until(lambda: state()["state"] != "active", deadline_s=PATIENCE_S)
    return state()


def attempts(client: httpx.Client, job: str) -> dict[str, str]:
    nodes = {name: checked(client.get(f"/api/nodes/{name}")) for name in NODES}
    return {name: a["detail"] for name, node in nodes.items() for a in node["attempts"] if a["deployment"] == job}


def versions(client: httpx.Client) -> list[str]:
    return [node["installed"][0]["version"] for node in checked(client.get("/api/nodes"))["nodes"]]


def test_who_has_it_adopts_it_the_others_install_it_and_a_recall_brings_all_back(client: httpx.Client) -> None:
    tried = publish(client, "1.1.0", target_nodes=["node-1"])
    assert ended(client, tried)["state"] == "complete"
    assert versions(client) == ["1.1.0", "1.0.0", "1.0.0"]
    wider = publish(client, "1.1.0", group=GROUP, waves=[{"share": 0, "devices": ["node-2"]}, {"share": 100}])
    assert checked(client.get(f"/api/updates/{tried}"))["superseded"]
    job = ended(client, wider)
    assert (job["state"], job["counts"]["committed"]) == ("complete", 3)
    assert attempts(client, wider)["node-1"] == "already installed", "without an attempt"
    assert versions(client) == ["1.1.0"] * 3
    checked(client.post(f"/api/updates/{wider}/recall"))
    until(lambda: versions(client) == ["1.0.0"] * 3, deadline_s=PATIENCE_S)
    again = checked(client.get("/api/nodes/node-1"))
    assert again["stage"] == "idle"


def test_a_recall_before_its_wave_also_brings_back_the_device_that_tried_it(client: httpx.Client) -> None:
    tried = publish(client, "1.1.0", target_nodes=["node-1"])
    ended(client, tried)
    wider = publish(
        client, "1.1.0", group=GROUP, waves=[{"share": 0, "devices": ["node-2"]}, {"share": 100}], soak_s=600
    )
    until(lambda: versions(client) == ["1.1.0", "1.1.0", "1.0.0"], deadline_s=PATIENCE_S)
    assert "node-1" not in attempts(client, wider)
    checked(client.post(f"/api/updates/{wider}/recall"))
    until(lambda: versions(client) == ["1.0.0"] * 3, deadline_s=PATIENCE_S)
    assert checked(client.get(f"/api/updates/{tried}"))["reason"] == f"recalled with {wider}"
