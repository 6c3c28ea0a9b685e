"""A server whose memory is lost, over real brokers: it goes on above what it finds there, or above what it is told.

The device is the trust store's own arithmetic: it remembers the manifest and the assignment that it obeyed.
"""

import operator
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from securesystemslib.signer import CryptoSigner

from broker_config.child import EmbeddedBroker
from fleet_protocol.acceptance import Mark, open_assignment, open_manifest
from fleet_protocol.envelope import KeySet
from fleet_protocol.errors import ProtocolError
from server.services.catalogue_state import verify_contents
from tests.fakes.brokers import mosquitto
from tests.fakes.mqtt_peer import Peer
from tests.fakes.running_server import CLASS, FLEET, GROUP, Desk, checked, running, settings_for
from tests.fakes.waiting import until

MANIFEST = f"fleet/v1/groups/{GROUP}/manifest"
ASSIGNMENT = "fleet/v1/devices/node-1/assignment"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.pack("web", "1.0.0", 1)
    return made


@pytest.fixture
def data(tmp_path: Path, desk: Desk) -> Path:
    desk.export(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:
        if request.param == "mosquitto":
            yield stack.enter_context(mosquitto(tmp_path))
        else:
            yield stack.enter_context(EmbeddedBroker.start())


@dataclass
class RememberingDevice:
    """Obeys as a device does, with its own connection; what it would refuse is raised."""

    role: KeySet
    key: dict[str, Any]
    manifest: Mark | None = None
    assignment: Mark | None = None

    def enrol(self, client: httpx.Client) -> None:
        """The same key, before and after the loss."""
        body = {"id": "node-1", "group": GROUP, "class": CLASS, "public_key": self.key}
        checked(client.post("/api/nodes/register", json=body))

    def obeys(self, host: str, port: int) -> None:
        """Wait until the broker retains both documents for it, and take them."""
        with Peer(host, port, "node-1") as peer:
            for topic in (MANIFEST, ASSIGNMENT):
                peer.subscribe(topic)
            heard: dict[str, bytes] = {}
            while set(heard) != {MANIFEST, ASSIGNMENT}:
                message = peer.next()
                if message.payload:
                    heard[message.topic] = message.payload
        at = {"role": self.role, "fleet": FLEET}
        self.manifest = open_manifest(heard[MANIFEST], group=GROUP, now_s=0.0, mark=self.manifest, **at).mark
        self.assignment = open_assignment(heard[ASSIGNMENT], device="node-1", mark=self.assignment, **at).mark


@pytest.fixture
def device(desk: Desk) -> RememberingDevice:
    contents = verify_contents([root.data for root in desk.fleet.roots()], desk.fleet.targets_bytes(), fleet=FLEET)
    key = CryptoSigner.generate_ed25519().public_key.to_dict()
    return RememberingDevice(contents.root.roles["deployment"], key)


def busy(data: Path, broker: Any, device: RememberingDevice) -> None:
    """A server that has issued some documents, obeyed by the device, and is gone with its database."""
    with running(settings_for(data, broker_url=broker.url)) as (_, client):
        device.enrol(client)
        for group in ("line-2", GROUP, "line-2", GROUP):
            checked(client.put("/api/nodes/node-1/group", json={"group": group}))
        job = {"update_type": "files", "package_name": "web", "package_version": "1.0.0", "group": GROUP}
        job_id = checked(client.post("/api/updates", json=job))["job_id"]
        for verb in ("hold", "resume", "hold"):
            checked(client.post(f"/api/updates/{job_id}/{verb}"))
        until(lambda: checked(client.get("/health"))["broker"]["connected"])
        newest = {row["name"]: row["sequence"] for row in checked(client.get("/api/groups"))["groups"]}
        until(lambda: _sequences(device, broker)[0] >= newest[GROUP])
    for file in data.glob("fairlead.db*"):
        file.unlink()


def _sequences(device: RememberingDevice, broker: Any) -> tuple[int, int]:
    """Of the newest that the broker has and the device obeys."""
    device.obeys(broker.host, broker.port)
    assert device.manifest is not None and device.assignment is not None
    return device.manifest.sequence, device.assignment.sequence


def test_a_server_that_lost_its_database_goes_on_above_what_the_broker_holds(
    data: Path, broker: Any, device: RememberingDevice
) -> None:
    busy(data, broker, device)
    assert device.manifest is not None and device.assignment is not None
    before = device.manifest.sequence, device.assignment.sequence
    with running(settings_for(data, broker_url=broker.url)) as (_, client):
        until(lambda: [entry for entry in _audit(client) if entry["verb"] == "continue"])
        device.enrol(client)
        until(lambda: _obeys(device, broker) and min(map(operator.sub, _sequences(device, broker), before)) > 0)
        assert checked(client.get("/health"))["problems"] == []
    with running(settings_for(data, broker_url=broker.url)) as (_, client):
        until(lambda: checked(client.get("/health"))["broker"]["connected"])
        device.obeys(broker.host, broker.port)


def test_where_the_broker_has_forgotten_too_an_operator_sets_the_floor(
    data: Path, tmp_path: Path, device: RememberingDevice
) -> None:
    with mosquitto(tmp_path) as broker:
        busy(data, broker, device)
    with mosquitto(tmp_path) as empty:
        with running(settings_for(data, broker_url=empty.url)) as (_, client):
            device.enrol(client)
            with pytest.raises(ProtocolError) as caught:
                device.obeys(empty.host, empty.port)
            assert caught.value.code == "replay", "what would happen without"
        with running(settings_for(data, broker_url=empty.url, sequence_floor=1_000)) as (_, client):
            until(lambda: checked(client.get("/api/groups"))["groups"][0]["sequence"] > 1_000)
            until(lambda: _obeys(device, empty))
            assert device.assignment is not None and device.assignment.sequence == 1_001
            # Groups that come later are above it, too; and it need be said only once.
        with running(settings_for(data, broker_url=empty.url)) as (_, client):
            checked(client.put("/api/nodes/node-1/group", json={"group": "line-3"}))
            groups = checked(client.get("/api/groups"))["groups"]
            assert min(group["sequence"] for group in groups) > 1_000


def _obeys(device: RememberingDevice, broker: Any) -> bool:
    try:
        device.obeys(broker.host, broker.port)
    except ProtocolError as error:
        assert error.code == "replay", "the newer documents are still on their way"
        return False
    return True


def _audit(client: httpx.Client) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = checked(client.get("/api/audit"))["entries"]
    return entries


def test_removed_devices_are_gone_from_the_broker(data: Path, broker: Any, device: RememberingDevice) -> None:
    with running(settings_for(data, broker_url=broker.url)) as (_, client), Peer(broker.host, broker.port, "p") as peer:
        until(lambda: checked(client.get("/health"))["broker"]["connected"])
        device.enrol(client)
        peer.publish("fleet/v1/devices/node-1/availability", b"online", retain=True)
        until(lambda: checked(client.get("/api/nodes/node-1"))["available"])
        device.obeys(broker.host, broker.port)
        peer.subscribe("fleet/v1/devices/node-1/assignment")
        assert peer.next().payload
        checked(client.delete("/api/nodes/node-1"))
        assert peer.next().payload == b""
        with Peer(broker.host, broker.port, "late") as late:
            late.subscribe("fleet/v1/devices/+/availability")
            late.subscribe(MANIFEST)
            assert late.next().topic == MANIFEST
