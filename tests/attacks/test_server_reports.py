"""M5: reports that are spoofed, replayed, of another device or of nobody, with the whole server on mosquitto.

A good report after them is stored; that it is also shows that the bad ones before it had been dealt with.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.brokers import mosquitto
from tests.fakes.mqtt_peer import Peer
from tests.fakes.reporting import ReportingDevice
from tests.fakes.running_server import CLASS, GROUP, Desk, checked, running, settings_for
from tests.fakes.waiting import until

Scene = tuple[httpx.Client, Peer, ReportingDevice, ReportingDevice]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("reports")
    desk = Desk(folder)
    desk.export(folder / "data")
    with mosquitto(folder) as broker, running(settings_for(folder / "data", broker_url=broker.url)) as (_, client):
        devices = ReportingDevice("node-1", GROUP), ReportingDevice("node-2", GROUP)
        for device in devices:
            key = device.signer.public_key.to_dict()
            body = {"id": device.name, "group": GROUP, "class": CLASS, "public_key": key}
            checked(client.post("/api/nodes/register", json=body))
        until(lambda: client.get("/health").json()["broker"]["connected"])
        with Peer(broker.host, broker.port, "anybody") as peer:
            yield client, peer, *devices


def dropped(client: httpx.Client, code: str) -> float:
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("fairlead_ingest_dropped_total{") and f'code="{code}"' in line and 'kind="report"' in line:
            return float(line.split()[-1])
    return 0.0


def why(client: httpx.Client, device: str) -> str:
    return str(checked(client.get(f"/api/nodes/{device}"))["why"])


def send(peer: Peer, device: str, payload: bytes) -> None:
    peer.publish(f"fleet/v1/devices/{device}/report", payload)


def altered(report: bytes) -> bytes:
    at = report.index(b'"sig":"') + 20
    return report[:at] + (b"A" if report[at : at + 1] != b"A" else b"B") + report[at + 1 :]


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        ("altered", "signature"),
        ("signed by another device", "signature"),
        ("another device's on my topic", "signature"),
        ("my name on another's topic", "scope"),
        ("replayed", "replay"),
        ("older", "replay"),
        ("nonsense", "parse"),
        ("another fleet", "scope"),
        ("nobody", "unknown-node"),
    ],
)
def test_m5_dropped_and_counted_and_the_next_good_one_counts(scene: Scene, attack: str, code: str) -> None:
    client, peer, mine, other = scene
    good = mine.report(why=f"before {attack}")
    send(peer, "node-1", good)
    until(lambda: why(client, "node-1") == f"before {attack}")
    before = dropped(client, code)
    bad: dict[str, Any] = {
        "altered": lambda: ("node-1", altered(mine.report(why="hacked"))),
        "signed by another device": lambda: ("node-1", _signed_by(other, mine, "hacked")),
        "another device's on my topic": lambda: ("node-1", other.report(why="hacked")),
        "my name on another's topic": lambda: ("node-2", _named(other, "node-1", "hacked")),
        "replayed": lambda: ("node-1", good),
        "older": lambda: ("node-1", mine.report(why="hacked", counter=1)),
        "nonsense": lambda: ("node-1", b"{"),
        "another fleet": lambda: ("node-1", mine.report(why="hacked", fleet="other")),
        "nobody": lambda: ("nobody", mine.report(why="hacked")),
    }
    send(peer, *bad[attack]())
    until(lambda: dropped(client, code) > before)
    assert why(client, "node-1") == f"before {attack}"
    send(peer, "node-1", mine.report(why=f"after {attack}"))
    until(lambda: why(client, "node-1") == f"after {attack}")
    assert why(client, "node-2") != "hacked"


def _signed_by(thief: ReportingDevice, victim: ReportingDevice, text: str) -> bytes:
    """A report in the victim's name under the thief's key, with the victim's key id on it."""
    return _named(thief, victim.name, text).replace(
        thief.signer.public_key.keyid.encode(), victim.signer.public_key.keyid.encode()
    )


def _named(device: ReportingDevice, name: str, text: str) -> bytes:
    return device.report(why=text, device=name)
