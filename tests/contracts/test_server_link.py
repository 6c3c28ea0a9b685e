"""The server's link: one suite for the twin and for paho on both brokers."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from fleet_protocol import topics
from fleet_protocol.topics import Topics
from server.adapters.clock import SystemClock
from server.adapters.mqtt import LinkSettings, MqttLink
from server.ports import Incoming, Link
from tests.fakes.brokers import BROKERS
from tests.fakes.mqtt_peer import Peer
from tests.fakes.server_link import FakeBroker, FakeServerLink
from tests.fakes.waiting import until

T = Topics()
MANIFEST = T.of(topics.MANIFEST, group="line-1")
COMMAND = T.of(topics.COMMAND, device="node-1")
REPORT = T.of(topics.REPORT, device="node-1")
STATE = T.of(topics.STATE, device="node-1")


class StartedLink(Link, Protocol):
    """A link with its life."""

    def start(
        self, intake: "Ears", *, on_connected: Callable[[bool], None], on_retained: Callable[[str, bytes], None]
    ) -> None: ...
    def stop(self) -> None: ...


@dataclass
class Ears:
    """Takes everything; acknowledges at once unless told otherwise."""

    acknowledge: bool = True
    room: int = 1_000_000
    heard: list[Incoming] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    """For each connection, whether the broker had kept the session."""
    retained: list[tuple[str, bytes]] = field(default_factory=list)

    def offer(self, message: Incoming) -> bool:
        if len(self.heard) >= self.room:
            return False
        self.heard.append(message)
        if self.acknowledge:
            message.ack()
        return True

    def refuse(self, code: str, detail: str) -> None:
        self.refused.append((code, detail))

    def connected(self, kept: bool) -> None:
        self.kept.append(kept)

    @property
    def connects(self) -> int:
        return len(self.kept)

    def payloads(self, kind: topics.TopicType) -> list[bytes]:
        return [message.payload for message in self.heard if message.address.type is kind]


@dataclass
class World:
    """A broker, another client of it, and how to make a link to it."""

    new_link: Callable[[], StartedLink]
    publish: Callable[..., None]
    received: Callable[[], list[tuple[str, bytes]]]
    kill: Callable[[], None]
    restart: Callable[[], None]
    keeps: bool
    """Whether sessions and retained messages survive a kill."""
    impostor: Callable[[], Peer] | None = None
    """Another client that speaks under the link's name; the twin has none."""
    real: bool = True

    def start(self, ears: Ears | None = None) -> tuple[StartedLink, Ears]:
        """A connected link."""
        link, ears = self.new_link(), ears or Ears()
        link.start(ears, on_connected=ears.connected, on_retained=lambda *both: ears.retained.append(both))
        until(lambda: link.connected and ears.connects)
        return link, ears


@pytest.fixture(params=["fake", "mosquitto", "amqtt"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    links: list[StartedLink] = []
    worlds = _fake_world(links) if request.param == "fake" else _real_world(request.param, tmp_path, links)
    yield from worlds


def _fake_world(links: list[StartedLink]) -> Iterator[World]:
    broker = FakeBroker()

    def new_link() -> StartedLink:
        links.append(FakeServerLink(broker, T, SystemClock()))
        return links[-1]

    def received() -> list[tuple[str, bytes]]:
        return [(topic, payload) for topic, payload, _ in broker.published]

    yield World(new_link, broker.publish, received, broker.kill, broker.restart, keeps=True, real=False)
    for link in links:
        link.stop()


def _real_world(kind: str, tmp_path: Path, links: list[StartedLink]) -> Iterator[World]:
    with BROKERS[kind](tmp_path) as broker:
        settings = LinkSettings(url=broker.url, backoff_least_s=0.05, backoff_most_s=0.1)

        def new_link() -> StartedLink:
            links.append(MqttLink(settings, T, SystemClock()))
            return links[-1]

        def publish(topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
            with Peer(broker.host, broker.port, "node-1") as peer:
                peer.publish(topic, payload, qos=qos, retain=retain)

        def impostor() -> Peer:
            return Peer(broker.host, broker.port, settings.client_id)

        seen: list[tuple[str, bytes]] = []
        watcher = Peer(broker.host, broker.port, "watcher")
        watcher.subscribe("fleet/#")

        def received() -> list[tuple[str, bytes]]:
            while not watcher.messages.empty():
                message = watcher.next()
                seen.append((message.topic, message.payload))
            return seen

        def restart() -> None:
            nonlocal watcher
            watcher.close()
            broker.restart()
            watcher = Peer(broker.host, broker.port, "watcher")
            watcher.subscribe("fleet/#")

        try:
            keeps = kind == "mosquitto"
            yield World(new_link, publish, received, broker.kill, restart, keeps=keeps, impostor=impostor)
        finally:
            watcher.close()
            for link in links:
                link.stop()


def test_a_message_reaches_the_broker(world: World) -> None:
    link, _ = world.start()
    link.publish(COMMAND, b"\x00\xff do it", retain=False, qos=1)
    until(lambda: (COMMAND, b"\x00\xff do it") in world.received())


def test_what_was_handed_over_before_the_connection_goes_out_in_order(world: World) -> None:
    link = world.new_link()
    for number in range(50):
        link.publish(COMMAND, b"%d" % number, retain=False, qos=1)
    assert not link.connected
    ears = Ears()
    link.start(ears, on_connected=ears.connected, on_retained=lambda *_: None)
    until(lambda: len(world.received()) >= 50)
    assert world.received() == [(COMMAND, b"%d" % number) for number in range(50)]


def test_messages_wait_over_a_disconnect_and_of_a_retained_topic_only_the_newest(world: World) -> None:
    link, ears = world.start()
    world.kill()
    until(lambda: not link.connected)
    link.publish(MANIFEST, b"old", retain=True, qos=1)
    link.publish(MANIFEST, b"new", retain=True, qos=1)
    world.restart()
    until(lambda: (MANIFEST, b"new") in world.received())
    assert (MANIFEST, b"old") not in world.received()
    assert ears.connects == 2


def test_a_connection_tells_whether_the_broker_has_kept_the_session(world: World) -> None:
    link, ears = world.start()
    world.kill()
    until(lambda: not link.connected)
    world.restart()
    until(lambda: ears.connects == 2)
    assert ears.kept == [False, world.keeps]


def test_a_session_that_another_client_ended_is_not_taken_for_a_kept_one(world: World) -> None:
    """One that speaks under our name, as with our certificate: what devices sent meanwhile is lost."""
    if world.impostor is None or not world.keeps:
        pytest.skip("the twin has no other clients, and amqtt lets two speak under one name")
    _, ears = world.start()
    with world.impostor():
        until(lambda: ears.connects == 2)
    assert not ears.kept[1]


def test_a_retained_message_is_there_for_whoever_comes_later(world: World) -> None:
    link, _ = world.start()
    link.publish(MANIFEST, b"manifest", retain=True, qos=1)
    until(lambda: (MANIFEST, b"manifest") in world.received())
    link.stop()
    _, late = world.start()
    until(lambda: (MANIFEST, b"manifest") in late.retained)


def test_the_server_hears_of_its_own_retained_topics_whoever_wrote_them(world: World) -> None:
    link, ears = world.start()
    link.publish(MANIFEST, b"right", retain=True, qos=1)
    until(lambda: (MANIFEST, b"right") in ears.retained)
    world.publish(MANIFEST, b"", retain=True)
    until(lambda: ears.retained[-1] == (MANIFEST, b""))


def test_messages_of_devices_reach_the_intake_with_their_address(world: World) -> None:
    _, ears = world.start()
    world.publish(REPORT, b"report")
    world.publish(T.of(topics.HEARTBEAT, device="node-2"), b"{}", qos=0)
    until(lambda: len(ears.heard) == 2)
    report, heartbeat = sorted(ears.heard, key=lambda message: message.address.type.name, reverse=True)
    assert (report.address.type, report.address.values, report.payload) == (
        topics.REPORT,
        {"device": "node-1"},
        b"report",
    )
    assert (heartbeat.address.type, heartbeat.address.values) == (topics.HEARTBEAT, {"device": "node-2"})
    assert abs(report.at_s - SystemClock().now_s()) < 60


def test_retained_messages_of_devices_are_delivered_at_a_connection(world: World) -> None:
    world.publish(STATE, b'{"stage":"idle"}', retain=True)
    _, ears = world.start()
    until(lambda: set(ears.payloads(topics.STATE)) == {b'{"stage":"idle"}'})  # amqtt delivers it twice


@pytest.mark.parametrize("topic", ["fleet/v1/devices/UPPER/report", "fleet/v1/devices/a.b/state"])
def test_a_topic_out_of_our_grammar_is_refused_and_not_delivered(world: World, topic: str) -> None:
    _, ears = world.start()
    world.publish(topic, b"x")
    world.publish(REPORT, b"after")
    until(lambda: ears.payloads(topics.REPORT) == [b"after"])
    assert [code for code, _ in ears.refused] == ["schema"]


def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(world: World) -> None:
    if not world.keeps:
        pytest.skip("amqtt forgets its sessions when it ends")
    link, ears = world.start(Ears(acknowledge=False))
    world.publish(REPORT, b"first")
    world.publish(REPORT, b"second")
    until(lambda: len(ears.heard) == 2)
    ears.heard[0].ack()
    link.publish(COMMAND, b"after the ack", retain=False, qos=1)
    until(lambda: (COMMAND, b"after the ack") in world.received())
    world.kill()
    until(lambda: not link.connected)
    world.restart()
    until(lambda: len(ears.heard) == 3)
    assert ears.heard[2].payload == b"second"
    ears.heard[1].ack()  # of the old connection: harmless
    ears.heard[2].ack()


def test_a_late_acknowledgement_may_come_from_any_thread_after_the_end(world: World) -> None:
    link, ears = world.start(Ears(acknowledge=False))
    world.publish(REPORT, b"report")
    until(lambda: ears.heard)
    link.stop()
    thread = threading.Thread(target=ears.heard[0].ack)
    thread.start()
    thread.join()
    assert not link.connected


def test_while_there_is_no_room_nothing_is_lost_and_nothing_read(world: World) -> None:
    if not world.real:
        pytest.skip("the twin has no network to hold anything back")
    link, ears = world.start(Ears(acknowledge=False, room=3))
    for number in range(10):
        world.publish(REPORT, b"%d" % number)
    until(lambda: len(ears.heard) == 3)
    link.publish(COMMAND, b"still publishing", retain=False, qos=1)
    until(lambda: (COMMAND, b"still publishing") in world.received())
    assert len(ears.heard) == 3
    ears.room = 1_000
    for message in list(ears.heard):
        message.ack()
    until(lambda: len(ears.heard) == 10)
    assert [message.payload for message in ears.heard] == [b"%d" % number for number in range(10)]


def test_large_documents_pass_whole(world: World) -> None:
    link, ears = world.start()
    document = bytes(range(256)) * 4_096
    link.publish(T.of(topics.TARGETS, version=7), document, retain=True, qos=1)
    until(lambda: (T.of(topics.TARGETS, version=7), document) in ears.retained)


def test_a_burst_arrives_whole_and_in_order(world: World) -> None:
    link, ears = world.start()
    for number in range(500):
        link.publish(T.of(topics.ROOT, version=number + 1), b"%d" % number, retain=True, qos=1)
    until(lambda: len(ears.retained) == 500)
    assert [payload for _, payload in ears.retained] == [b"%d" % number for number in range(500)]
