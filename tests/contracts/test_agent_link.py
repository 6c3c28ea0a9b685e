"""The agent's link: one suite for the fake and for paho on both brokers."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from device_agent.adapters.mqtt import MqttLink
from device_agent.log import Log
from device_agent.ports import Link
from device_agent.settings import AgentSettings, BrokerSettings, Intervals
from fleet_protocol import limits
from tests.fakes.agent_link import FakeBroker, FakeLink, HeardListener
from tests.fakes.brokers import BROKERS
from tests.fakes.waiting import until

AVAILABILITY = "fleet/v1/devices/node-1/availability"
STATE = "fleet/v1/devices/node-1/state"
MANIFEST = "fleet/v1/groups/line-1/manifest"


@dataclass
class World:
    """A broker, what another client sees of it, and how to make links to it."""

    new_link: Callable[[HeardListener], Link]
    publish: Callable[..., None]
    seen: HeardListener
    kill: Callable[[], None]
    restart: Callable[[], None]
    keeps: bool
    """Whether retained messages survive a kill."""


class Watcher:
    """A plain paho client that sees everything."""

    def __init__(self, host: str, port: int, seen: HeardListener) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="watcher")
        self._client.on_message = lambda _c, _d, message: seen.received(message.topic, message.payload)
        self._client.on_connect = lambda client, *_: client.subscribe("fleet/#", 1)
        self._client.on_subscribe = lambda *_: seen.connected()
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(host, port)
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        self._client.publish(topic, payload, 1, retain=retain).wait_for_publish(30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(params=["fake", "mosquitto", "amqtt"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    links: list[Link] = []
    seen = HeardListener()
    if request.param == "fake":
        yield from _fake_world(seen, links)
        return
    with BROKERS[request.param](tmp_path) as broker:
        settings = AgentSettings(
            device="node-1",
            fleet="acme",
            device_class="x86_64",
            state_dir=tmp_path,
            broker=replace(BrokerSettings(), url=broker.url, host=broker.host, port=broker.port),
            intervals=Intervals(reconnect_most_s=0.1),
        )

        def new_link(listener: HeardListener) -> Link:
            links.append(MqttLink(settings, listener, Log(io.StringIO())))
            return links[-1]

        watcher = Watcher(broker.host, broker.port, seen)
        try:
            until(lambda: seen.connects)
            yield World(new_link, watcher.publish, seen, broker.kill, broker.restart, request.param == "mosquitto")
        finally:
            for link in links:
                link.stop()
            watcher.close()


def _fake_world(seen: HeardListener, links: list[Link]) -> Iterator[World]:
    broker = FakeBroker()

    def new_link(listener: HeardListener) -> Link:
        links.append(FakeLink(broker, listener, AVAILABILITY))
        return links[-1]

    def publish(topic: str, payload: bytes, *, retain: bool) -> None:
        broker.publish(topic, payload, retain=retain)

    seen.messages = broker.published
    yield World(new_link, publish, seen, broker.kill, broker.restart, keeps=False)
    for link in links:
        link.stop()


def _connected(world: World, filters: tuple[str, ...] = ()) -> tuple[Link, HeardListener]:
    listener = HeardListener()
    link = world.new_link(listener)
    link.subscribe(filters)
    link.start()
    until(lambda: link.connected and listener.connects)
    return link, listener


def test_online_then_offline(world: World) -> None:
    link, _ = _connected(world)
    until(lambda: world.seen.of(AVAILABILITY) == [b"online"])
    link.stop()
    assert not link.connected
    until(lambda: world.seen.of(AVAILABILITY)[1:] and set(world.seen.of(AVAILABILITY)[1:]) == {b"offline"})


def test_what_is_published_arrives_and_is_acknowledged(world: World) -> None:
    link, _ = _connected(world)
    sent: list[int] = []
    link.publish(STATE, b"1", qos=1, retain=True, sent=lambda: sent.append(1))
    link.publish(STATE, b"2", qos=0, retain=False)
    until(lambda: sent == [1])
    until(lambda: sorted(world.seen.of(STATE)) == [b"1", b"2"])


def test_subscribing_brings_what_is_retained_and_what_follows(world: World) -> None:
    world.publish(MANIFEST, b"old", retain=True)
    link, listener = _connected(world, (MANIFEST,))
    until(lambda: listener.distinct(MANIFEST) == [b"old"])
    world.publish(MANIFEST, b"new", retain=True)
    until(lambda: listener.distinct(MANIFEST) == [b"old", b"new"])
    link.subscribe((STATE,))
    world.publish(STATE, b"x", retain=True)
    until(lambda: listener.of(STATE))


def test_unsubscribing_ends_it(world: World) -> None:
    link, listener = _connected(world, (MANIFEST, STATE))
    world.publish(MANIFEST, b"1", retain=False)
    until(lambda: listener.distinct(MANIFEST) == [b"1"])
    link.unsubscribe((MANIFEST, "fleet/v1/never"))
    link.publish("fleet/v1/mark", b"", qos=1, retain=False)
    until(lambda: world.seen.of("fleet/v1/mark"))
    world.publish(MANIFEST, b"2", retain=False)
    world.publish(STATE, b"3", retain=False)
    until(lambda: listener.of(STATE) == [b"3"])
    assert listener.distinct(MANIFEST) == [b"1"]


def test_what_waits_for_a_connection(world: World) -> None:
    """QoS 1 waits in order, of a retained topic only the newest, QoS 0 not at all."""
    listener = HeardListener()
    link = world.new_link(listener)
    sent: list[bytes] = []
    for payload in (b"1", b"2"):
        link.publish(STATE, payload, qos=1, retain=True)
        link.publish("fleet/v1/r", payload, qos=1, retain=False, sent=lambda p=payload: sent.append(p))
        link.publish("fleet/v1/h", payload, qos=0, retain=False)
    link.start()
    until(lambda: sent == [b"1", b"2"])
    until(lambda: len(world.seen.of("fleet/v1/r")) == 2 and world.seen.of(STATE))
    assert world.seen.of(STATE) == [b"2"]
    assert world.seen.of("fleet/v1/h") == []


def test_a_killed_broker_is_found_again(world: World) -> None:
    world.publish(MANIFEST, b"1", retain=True)
    link, listener = _connected(world, (MANIFEST,))
    until(lambda: listener.of(MANIFEST))
    world.kill()
    until(lambda: listener.losses and not link.connected)
    sent: list[int] = []
    link.publish("fleet/v1/report", b"kept", qos=1, retain=False, sent=lambda: sent.append(1))
    link.publish("fleet/v1/beat", b"", qos=0, retain=False)
    assert not sent
    before = world.seen.connects
    world.restart()
    until(lambda: listener.connects == 2 and sent == [1])
    until(lambda: world.seen.of(AVAILABILITY)[-1:] == [b"online"])
    until(lambda: isinstance(link, FakeLink) or world.seen.connects > before)
    world.publish(MANIFEST, b"2", retain=True)
    until(lambda: listener.of(MANIFEST)[-1] == b"2")
    assert world.seen.of("fleet/v1/beat") == []


def test_stop_without_a_broker(world: World) -> None:
    world.kill()
    link = world.new_link(HeardListener())
    link.start()
    link.stop()
    assert not link.connected
    world.restart()


@pytest.mark.parametrize("world", ["mosquitto", "amqtt"], indirect=True)
def test_a_message_beyond_every_bound_is_never_held(world: World) -> None:
    _, listener = _connected(world, (MANIFEST,))
    world.publish(MANIFEST, b"x" * (limits.TARGETS_SIZE + 128 * 1024), retain=False)
    world.publish(MANIFEST, b"y" * limits.TARGETS_SIZE, retain=False)
    world.publish(MANIFEST, b"small", retain=False)
    until(lambda: listener.of(MANIFEST)[-1:] == [b"small"])
    received = [payload for payload in listener.of(MANIFEST) if payload]
    assert [len(payload) for payload in received] == [limits.TARGETS_SIZE, 5]
    assert not listener.losses


@pytest.mark.parametrize(("world", "version"), [("mosquitto", b"5"), ("amqtt", b"4")], indirect=["world"])
def test_the_version_that_worked_is_remembered(world: World, version: bytes, tmp_path: Path) -> None:
    link, _ = _connected(world)
    until((tmp_path / "mqtt-version").exists)
    assert (tmp_path / "mqtt-version").read_bytes() == version
    link.stop()
    _connected(world)
