"""What the trust path reads retained documents through: one suite for the fake and for all that is real.

The adapters: documents in memory; the agent's link and reader on mosquitto and on amqtt; and a worker's pipes, whose
resident reads from memory.
"""

import base64
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from device_agent.adapters.link_reader import LinkReader
from device_agent.adapters.mqtt import MqttLink
from device_agent.adapters.worker_process import WorkerProcess
from device_agent.log import Log
from device_agent.settings import AgentSettings, BrokerSettings
from fleet_protocol.topics import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Topics
from tests.fakes.agent_link import HeardListener
from tests.fakes.brokers import BROKERS
from tests.fakes.trust_fleet import DocumentSource, Fleet
from tests.fakes.waiting import until

TOPICS = Topics()
WAIT_S = 30.0


@dataclass
class World:
    """A source, and how to change what it holds."""

    get: Callable[[str], bytes | None]
    put: Callable[[str, bytes], None]


class Ear(HeardListener):
    """Passes messages on to the reader."""

    reader: LinkReader

    def received(self, topic: str, payload: bytes) -> None:
        super().received(topic, payload)
        self.reader.offer(topic, payload)


@pytest.fixture(params=["memory", "mosquitto", "amqtt", "pipes"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "memory":
        yield in_memory()
    elif request.param == "pipes":
        yield from through_pipes(tmp_path)
    else:
        yield from on_a_broker(request.param, tmp_path)


def in_memory() -> World:
    source = DocumentSource({})

    def put(topic: str, payload: bytes) -> None:
        source.documents[topic] = payload
        if not payload:
            del source.documents[topic]

    return World(source.get, put)


def through_pipes(tmp_path: Path) -> Iterator[World]:
    """Each read is a worker of its own that asks once and answers with what it got."""
    memory = in_memory()

    class Reader:
        def read(self, topic: str, *, timeout_s: float) -> bytes | None:
            return memory.get(topic)

    script = (
        "import base64\nfrom device_agent.worker.pipes import Pipes\npipes = Pipes.of_this_process()\n"
        "request = pipes.request()\npipes.watch()\ngot = pipes.want(request['op'])\n"
        "text = '' if got is None else base64.b64encode(got).decode()\n"
        "texts = [text[at : at + 60_000] for at in range(0, len(text), 60_000)]\n"
        "pipes.answer({'ok': True, 'result': {'got': None if got is None else texts}})\n"
    )
    worker = WorkerProcess(tmp_path / "agent.toml", Reader(), command=(sys.executable, "-c", script))

    def get(topic: str) -> bytes | None:
        answers: list[Any] = []
        worker.submit(topic, {}, answers.append)
        until(lambda: answers)
        got = answers[0]["result"]["got"]
        return None if got is None else base64.b64decode("".join(got))

    yield World(get, memory.put)
    worker.close()


def on_a_broker(kind: str, tmp_path: Path) -> Iterator[World]:
    with BROKERS[kind](tmp_path) as broker:
        ear = Ear()
        settings = AgentSettings(
            device="node-1",
            fleet="acme",
            device_class="x86_64",
            state_dir=tmp_path,
            broker=BrokerSettings(url=broker.url, host=broker.host, port=broker.port),
        )
        link = MqttLink(settings, ear, Log())
        ear.reader = LinkReader(link, TOPICS)
        publisher = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        publisher.connect(broker.host, broker.port)
        publisher.loop_start()

        def put(topic: str, payload: bytes) -> None:
            publisher.publish(topic, payload, qos=1, retain=True).wait_for_publish(WAIT_S)

        put(TOPICS.of(TIMESTAMP), b"every fleet has one")
        put(TOPICS.of(ROOT, version=1), b"every fleet has one")
        link.start()
        until(lambda: ear.connects)
        yield World(lambda topic: ear.reader.read(topic, timeout_s=WAIT_S), put)
        link.stop()
        publisher.disconnect()
        publisher.loop_stop()


def test_what_is_retained_is_read_byte_for_byte(world: World) -> None:
    documents = {
        TOPICS.of(TIMESTAMP): b'{"a": 1}',
        TOPICS.of(ROOT, version=2): bytes(range(256)),
        TOPICS.of(SNAPSHOT, version=7): b"x",
    }
    for topic, payload in documents.items():
        world.put(topic, payload)
    for _ in range(2):
        for topic, payload in documents.items():
            assert world.get(topic) == payload


def test_what_is_not_retained_is_none_each_time(world: World) -> None:
    for version in (2, 3, 3):
        assert world.get(TOPICS.of(ROOT, version=version)) is None


def test_what_comes_later_is_read_and_what_is_cleared_is_none(world: World) -> None:
    topic = TOPICS.of(ROOT, version=2)
    assert world.get(topic) is None
    world.put(topic, b"first")
    assert world.get(topic) == b"first"
    world.put(topic, b"second")
    assert world.get(topic) == b"second"
    world.put(topic, b"")
    assert world.get(topic) is None


def test_the_largest_documents_come_through(world: World) -> None:
    payload = bytes(range(256)) * (TARGETS.max_size // 256)
    topic = TOPICS.of(TARGETS, version=1)
    world.put(topic, payload)
    assert world.get(topic) == payload


def test_a_fleet_s_whole_catalogue(world: World) -> None:
    fleet = Fleet()
    fleet.add_release()
    fleet.publish()
    for topic, payload in fleet.retained().items():
        world.put(topic, payload)
    assert {topic: world.get(topic) for topic in fleet.published} == fleet.published
