"""What the doctor finds on real brokers."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_config.child import EmbeddedBroker
from fleet_protocol import strict_json
from fleet_protocol.envelope import MANIFEST_TYPE, Envelope
from fleet_protocol.timestamps import format_time
from fleet_protocol.topics import MANIFEST, STATE, TIMESTAMP, Topics
from server.cli.broker_findings import of_broker
from server.cli.broker_probe import BrokerAccount
from server.cli.findings import Finding
from tests.fakes.brokers import RunningBroker, mosquitto
from tests.fakes.mqtt_peer import Peer
from tests.fakes.ports import reserved_port
from tests.fakes.tls_broker import DASHBOARD, tls_broker

TOPICS = Topics()
GROUPS = [{"name": "line-1", "sequence": 3, "devices": 1}, {"name": "new", "sequence": 0, "devices": 0}]
DAY_S = 86_400


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    limits = "allow_anonymous true\nmax_inflight_messages 5\nmax_queued_messages 10"
    with mosquitto(tmp_path, config=limits) as running:
        yield running


def manifest(expires_s: float) -> bytes:
    payload = strict_json.dumps({"expires": format_time(expires_s)})
    return Envelope(payload, MANIFEST_TYPE, ()).encode()


def timestamp(expires_s: float) -> bytes:
    return strict_json.dumps({"signed": {"expires": format_time(expires_s)}})


def retain(host: str, port: int, *documents: tuple[str, bytes]) -> None:
    with Peer(host, port, "server") as server:
        for topic, payload in documents:
            server.publish(topic, payload, retain=True)


def found(account: BrokerAccount, *, named: bool = True) -> dict[str, Finding]:
    return {finding.what: finding for finding in of_broker(account, TOPICS, GROUPS, named=named)}


def test_a_broker_that_is_well(broker: RunningBroker) -> None:
    now_s = time.time()
    retain(
        broker.host,
        broker.port,
        (TOPICS.of(MANIFEST, group="line-1"), manifest(now_s + 6 * DAY_S)),
        (TOPICS.of(TIMESTAMP), timestamp(now_s + 2 * DAY_S)),
        (TOPICS.of(STATE, device="node-1"), b"{}"),
    )
    findings = found(BrokerAccount(url=broker.url))
    assert {finding.verdict for finding in findings.values()} == {"ok"}, findings
    assert "mosquitto version" in findings["broker version"].text
    assert "MQTT 5" in findings["broker version"].text
    assert "in 6 d" in findings["manifest expiry"].text


def test_a_broker_that_lost_a_manifest(broker: RunningBroker) -> None:
    findings = found(BrokerAccount(url=broker.url))
    assert findings["retained"].verdict == "fail"
    assert "line-1" in findings["retained"].text
    assert "new" not in findings["retained"].text


def test_documents_that_nobody_renews_or_that_are_none(broker: RunningBroker) -> None:
    now_s = time.time()
    retain(
        broker.host,
        broker.port,
        (TOPICS.of(MANIFEST, group="line-1"), manifest(now_s - 3 * DAY_S)),
        (TOPICS.of(MANIFEST, group="line-2"), manifest(now_s + 6 * DAY_S)),
        (TOPICS.of(MANIFEST, group="line-3"), b"\xff"),
        (TOPICS.of(TIMESTAMP), timestamp(now_s + 3_600)),
    )
    findings = found(BrokerAccount(url=broker.url))
    assert (findings["manifest expiry"].verdict, findings["catalogue expiry"].verdict) == ("fail", "warn")
    assert "line-1/manifest expired 3 d ago" in findings["manifest expiry"].text
    assert "line-3" in findings["manifests"].text
    retain(broker.host, broker.port, (TOPICS.of(TIMESTAMP), b"[]"))
    assert found(BrokerAccount(url=broker.url))["catalogue expiry"].verdict == "fail"


def test_a_queue_that_is_too_short_for_the_fleet(broker: RunningBroker) -> None:
    retain(broker.host, broker.port, *((TOPICS.of(STATE, device=f"node-{n}"), b"{}") for n in range(200)))
    finding = found(BrokerAccount(url=broker.url))["broker queue"]
    assert finding.verdict == "warn"
    assert "of 200 device states: raise max_queued_messages" in finding.text


def test_the_embedded_broker_is_named(tmp_path: Path) -> None:
    with EmbeddedBroker.start() as embedded:
        finding = found(BrokerAccount(url=embedded.url))["broker version"]
    assert finding.verdict == "warn"
    assert "embedded" in finding.text


@pytest.mark.parametrize("url", ["mqtt://127.0.0.1:{port}", "http://127.0.0.1:1", "mqtt://", "mqtt://[::1", "mqtts://"])
def test_no_broker_is_one_finding(url: str) -> None:
    with reserved_port() as port:
        account = BrokerAccount(url=url.format(port=port))
        for named, verdict in ((True, "fail"), (False, "warn")):
            findings = found(account, named=named)
            assert {(finding.what, finding.verdict) for finding in findings.values()} == {("broker probe", verdict)}


def test_a_production_broker_through_a_dashboards_certificate(tmp_path: Path) -> None:
    with tls_broker(tmp_path) as broker:
        with broker.server() as server:
            server.publish(TOPICS.of(MANIFEST, group="line-1"), manifest(time.time() + 6 * DAY_S), retain=True)
            cert, key = broker.services.issue_service(DASHBOARD).write(tmp_path / "doctor", DASHBOARD)
            url = f"mqtts://127.0.0.1:{broker.settings.services.port}"
            account = BrokerAccount(url=url, ca_file=broker.services.ca_file, cert_file=cert, key_file=key)
            findings = found(account)
            assert {finding.verdict for finding in findings.values()} == {"ok"}, findings
            assert findings["broker TLS"].text.startswith("expires in 82")
            assert not server.gone.is_set()
        for bad in (
            BrokerAccount(url=url, ca_file=broker.services.ca_file),
            BrokerAccount(url=url, ca_file=broker.devices.ca_file, cert_file=cert, key_file=key),
            BrokerAccount(url=url, ca_file=tmp_path / "none"),
            BrokerAccount(url=url, ca_file=broker.services.ca_file, cert_file=key, key_file=cert),
        ):
            assert found(bad)["broker probe"].verdict == "fail"
