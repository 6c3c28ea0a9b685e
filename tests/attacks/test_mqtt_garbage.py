"""Garbage of every kind on every topic that an agent or a server hears, retained or not, on real brokers.

It is dropped and counted under its code, whoever hears it stays up, and what is valid right after it counts.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import pytest

from fleet_protocol import topics
from fleet_protocol.topics import DEVICE_TOPICS, TOPIC_TYPES, Side, Topics, TopicType
from tests.fakes.agent_process import AgentProcess, ServerSide, running_agent
from tests.fakes.brokers import BROKERS, RunningBroker
from tests.fakes.garbage import GARBAGE
from tests.fakes.mqtt_peer import Peer
from tests.fakes.reporting import ReportingDevice
from tests.fakes.running_server import CLASS, GROUP, Desk, checked, running, settings_for
from tests.fakes.trust_fleet import Fleet
from tests.fakes.waiting import until

NAMES = Topics()
NODE = "node-1"
PLACES = {"device": NODE, "group": GROUP, "version": 2, "role": "more"}
FOREIGN = ("trust/root/x", "trust/root/0", "groups/UP/manifest", "devices/UP/state", "devices/node-1/other", "else")


def spelled(kind: TopicType) -> str:
    return NAMES.of(kind, **{name: value for name, value in PLACES.items() if f"{{{name}}}" in kind.pattern})


OF_DEVICES = [spelled(kind) for kind in DEVICE_TOPICS]
OF_SERVERS = [spelled(kind) for kind in TOPIC_TYPES if kind.publisher is Side.SERVER]
OF_NOBODY = [f"{NAMES.prefix}/{below}" for below in FOREIGN]


@pytest.fixture(params=sorted(BROKERS))
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningBroker]:
    with BROKERS[request.param](tmp_path) as broker:
        yield broker


def litter(broker: RunningBroker, where: Iterable[str]) -> None:
    """Publish everything everywhere: who listens now gets it all, who comes later the last of it."""
    with Peer(broker.host, broker.port, "vandal") as vandal:
        for topic in where:
            for payload in GARBAGE.values():
                vandal.publish(topic, payload, retain=True)


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet()
    fleet.add_release("notes", "1.0.0", 1, data=b"first")
    fleet.publish()
    return fleet


@pytest.fixture
def server(broker: RunningBroker, fleet: Fleet) -> Iterator[ServerSide]:
    side = ServerSide(broker, fleet)
    yield side
    side.close()


@pytest.fixture
def agent(tmp_path: Path, broker: RunningBroker, fleet: Fleet) -> Iterator[AgentProcess]:
    with running_agent(tmp_path / "agent", broker.url, fleet) as agent:
        yield agent


def obeys(server: ServerSide, fleet: Fleet) -> None:
    fleet.manifest()
    server.publish_all()
    until(lambda: server.reports(NODE) and server.reports(NODE)[-1]["sequence"] == fleet.sequence, deadline_s=120)


def test_an_agent_obeys_the_manifest_after_it(
    agent: AgentProcess, server: ServerSide, fleet: Fleet, broker: RunningBroker
) -> None:
    fleet.assignment()
    obeys(server, fleet)
    litter(broker, [*OF_SERVERS, *OF_NOBODY])
    for topic in OF_SERVERS:
        server.publish(topic, b"")  # as the server's guardian does
    obeys(server, fleet)
    assert agent.process is not None
    assert agent.process.poll() is None
    attacks = server.reports(NODE)[-1]["attacks"]
    assert {"size", "parse"} <= attacks.keys()
    assert "Traceback" not in agent.log.read_text()


@pytest.fixture
def client(broker: RunningBroker, tmp_path: Path) -> Iterator[httpx.Client]:
    desk = Desk(tmp_path)
    desk.pack("web", "1.0.0", 1)
    desk.export(tmp_path / "data")
    with running(settings_for(tmp_path / "data", broker_url=broker.url)) as (_, client):
        until(lambda: client.get("/health").json()["broker"]["connected"])
        yield client


def dropped(client: httpx.Client, kind: str) -> set[str]:
    """The codes under which messages of one kind were dropped."""
    start = "fairlead_ingest_dropped_total{"
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(start)]
    return {line.split('code="')[1].split('"')[0] for line in lines if f'kind="{kind}"' in line}


def test_a_server_stores_the_report_after_it_and_restores_its_documents(
    client: httpx.Client, broker: RunningBroker
) -> None:
    device = ReportingDevice(NODE, GROUP)
    body = {"id": NODE, "group": GROUP, "class": CLASS, "public_key": device.signer.public_key.to_dict()}
    checked(client.post("/api/nodes/register", json=body))
    litter(broker, [*OF_DEVICES, *OF_SERVERS, *OF_NOBODY])
    with Peer(broker.host, broker.port, NODE) as peer:
        peer.publish(spelled(topics.REPORT), device.report(why="still here"))
    until(lambda: checked(client.get(f"/api/nodes/{NODE}"))["why"] == "still here")
    for kind in DEVICE_TOPICS:
        wanted = {"size", "schema"} if kind is topics.AVAILABILITY else {"size", "parse"}
        until(lambda kind=kind, wanted=wanted: wanted <= dropped(client, kind.name))
    assert dropped(client, "unknown") == {"schema"}
    assert {"envelope", "type", "signature"} <= dropped(client, "report")
    assert client.get("/health").json()["problems"] == []
    for kind in (topics.MANIFEST, topics.ASSIGNMENT, topics.TIMESTAMP):
        until(lambda kind=kind: retained(broker, spelled(kind)).startswith(b'{"'))


def retained(broker: RunningBroker, topic: str) -> bytes:
    """What whoever connects now is given first."""
    with Peer(broker.host, broker.port, "reader") as reader:
        reader.subscribe(topic)
        return reader.next().payload
