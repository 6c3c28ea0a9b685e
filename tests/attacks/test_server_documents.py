"""M1, M2, M3: retained documents cleared or overwritten on a broker without access rules, with the whole server.

Every document of the server is attacked, in every way; each holds the right bytes again, counted and audited.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.brokers import RunningBroker, mosquitto
from tests.fakes.mqtt_peer import Peer
from tests.fakes.running_server import GROUP, Desk, checked, enrol, running, settings_for
from tests.fakes.waiting import until

PREFIX = "fleet/v1"
TOPICS = (
    f"{PREFIX}/trust/root/1",
    f"{PREFIX}/trust/timestamp",
    f"{PREFIX}/trust/snapshot/1",
    f"{PREFIX}/trust/targets/2",
    f"{PREFIX}/groups/{GROUP}/manifest",
    f"{PREFIX}/devices/node-1/assignment",
)


class Scene:
    """A server with one device, on a mosquitto where everybody may publish anything."""

    def __init__(self, broker: RunningBroker, client: httpx.Client, store: Any) -> None:
        self.broker = broker
        self.client = client
        self.store = store

    def peer(self, name: str, **more: Any) -> Peer:
        return Peer(self.broker.host, self.broker.port, name, **more)

    def retained(self, topic: str) -> bytes:
        """What a device that connects now is given; empty where there is nothing."""
        with self.peer("reader") as reader:
            reader.subscribe(topic)
            reader.subscribe(f"{PREFIX}/devices/sentinel/state")
            return next((message.payload for message in _before_sentinel(reader) if message.topic == topic), b"")

    def restored(self) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith("fairlead_documents_restored_total ")).split()[1])


def _before_sentinel(reader: Peer) -> Iterator[Any]:
    while True:
        message = reader.next()
        if message.topic.endswith("/state"):
            return
        yield message


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("documents")
    desk = Desk(folder)
    desk.pack("web", "1.0.0", 1)
    desk.export(folder / "data")
    with (
        mosquitto(folder) as broker,
        running(settings_for(folder / "data", broker_url=broker.url)) as (server, client),
        Peer(broker.host, broker.port, "sentinel") as sentinel,
    ):
        enrol(client, "node-1")
        sentinel.publish(f"{PREFIX}/devices/sentinel/state", b"here", retain=True)
        made = Scene(broker, client, server)
        until(lambda: all(made.retained(topic) for topic in TOPICS))
        # The first round after a connection publishes everything and counts nothing; it is over once this counts.
        sentinel.publish(f"{PREFIX}/groups/early/manifest", b"{}", retain=True)
        until(made.restored)
        yield made


def attack(scene: Scene, topic: str, payload: bytes, **more: Any) -> None:
    right = scene.retained(topic)
    assert right and right != payload
    before = scene.restored()
    with scene.peer("attacker", **more) as attacker:
        if more:
            attacker.vanish()
        else:
            attacker.publish(topic, payload, retain=True)
    until(lambda: scene.restored() > before)
    until(lambda: scene.retained(topic) == right)


@pytest.mark.parametrize("topic", TOPICS)
def test_m1_a_cleared_document_is_restored(scene: Scene, topic: str) -> None:
    attack(scene, topic, b"")


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("how", ["nonsense", "flipped", "of-another-topic"])
def test_m2_an_overwritten_document_is_restored(scene: Scene, topic: str, how: str) -> None:
    right = scene.retained(topic)
    other = scene.retained(TOPICS[(TOPICS.index(topic) + 1) % len(TOPICS)])
    payloads = {"nonsense": b"\x00\xff", "flipped": right[:-9] + bytes([right[-9] ^ 1]) + right[-8:]}
    attack(scene, topic, payloads.get(how, other))


def test_m2_an_older_manifest_of_our_own_is_restored(scene: Scene) -> None:
    topic = f"{PREFIX}/groups/{GROUP}/manifest"
    old = scene.retained(topic)
    asked = {"update_type": "files", "package_name": "web", "package_version": "1.0.0", "group": GROUP}
    job = checked(scene.client.post("/api/updates", json=asked))["job_id"]
    checked(scene.client.post(f"/api/updates/{job}/recall"))
    until(lambda: scene.retained(topic) != old)
    attack(scene, topic, old)


def test_m2_documents_that_ought_not_to_be_there_are_removed(scene: Scene) -> None:
    for topic in (f"{PREFIX}/trust/root/2", f"{PREFIX}/groups/ghost/manifest", f"{PREFIX}/devices/ghost/assignment"):
        with scene.peer("attacker") as attacker:
            attacker.publish(topic, b"{}", retain=True)
        until(lambda topic=topic: scene.retained(topic) == b"")  # type: ignore[misc]


def test_m3_a_last_will_is_restored_too(scene: Scene) -> None:
    topic = f"{PREFIX}/groups/{GROUP}/manifest"
    attack(scene, topic, b"{}", will=(topic, b"{}"))


def test_a_burst_is_one_audit_entry(scene: Scene) -> None:
    entries = checked(scene.client.get("/api/audit"))["entries"]
    told = [entry for entry in entries if entry["who"] == "guardian"]
    assert 1 <= len(told) <= 10, "every attack of this module, in bursts of a minute"


def test_the_server_went_on_working(scene: Scene, tmp_path: Path) -> None:
    assert checked(scene.client.get("/health"))["status"] == "ok"
    asked = {"update_type": "files", "package_name": "web", "package_version": "1.0.0", "target_nodes": ["node-1"]}
    job = checked(scene.client.post("/api/updates", json=asked))["job_id"]
    until(lambda: checked(scene.client.get(f"/api/updates/{job}"))["wave"] == 0)
