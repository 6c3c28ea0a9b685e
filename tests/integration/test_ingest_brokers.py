"""From a device's socket to a committed row, over real brokers, and over the death of every part."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from broker_config.names import SERVER
from fleet_protocol import topics
from fleet_protocol.topics import Topics
from server.adapters.clock import SystemClock
from server.adapters.mqtt import LinkSettings, MqttLink
from server.adapters.mqtt.link import subscriptions
from server.adapters.sql.store import SqlStore
from server.domain.fleet import Device
from server.domain.rollout import Policy, Rollout, Wave
from server.services.ingest import Ingest, IngestSettings
from server.services.ingest_metrics import IngestMetrics
from tests.fakes.brokers import BROKERS, RunningBroker, mosquitto
from tests.fakes.mqtt_peer import Peer, packet
from tests.fakes.ports import HOST
from tests.fakes.reporting import FLEET, ReportingDevice, attempt
from tests.fakes.store import MemoryStore
from tests.fakes.tls_broker import tls_broker
from tests.fakes.waiting import until

T = Topics()
REPORT = T.of(topics.REPORT, device="node-1")
SERVE = """
import signal, sys
from prometheus_client import CollectorRegistry
from fleet_protocol.topics import Topics
from server.adapters.clock import SystemClock
from server.adapters.mqtt import LinkSettings, MqttLink
from server.adapters.sql.store import SqlStore
from server.services.ingest import Ingest, IngestSettings
from server.services.ingest_metrics import IngestMetrics

database, broker, fleet = sys.argv[1:]
store = SqlStore(database)
ingest = Ingest(store, IngestSettings(fleet=fleet), IngestMetrics(CollectorRegistry()), on_reply=lambda *_: None)
link = MqttLink(LinkSettings(url=broker, backoff_most_s=0.2), Topics(), SystemClock())
ingest.start()
link.start(ingest, on_connected=lambda _: print("connected", flush=True), on_retained=lambda *_: None)
signal.pause()
"""


@contextmanager
def receiving(url: str, settings: LinkSettings) -> Iterator[tuple[MqttLink, SqlStore, CollectorRegistry]]:
    """A server's link, ingest and database in this process."""
    store, registry = SqlStore(url), CollectorRegistry()
    ingest = Ingest(store, IngestSettings(fleet=FLEET), IngestMetrics(registry), on_reply=lambda *_: None)
    link = MqttLink(replace(settings, backoff_least_s=0.05, backoff_most_s=0.1), T, SystemClock())
    ingest.start()
    link.start(ingest, on_connected=lambda _: None, on_retained=lambda *_: None)
    try:
        yield link, store, registry
    finally:
        ingest.stop()
        link.stop()
        store.close()


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningBroker]:
    with BROKERS[request.param](tmp_path) as broker:
        yield broker


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/fairlead.db"


def enrol(url: str, *devices: Device, deployments: int = 0) -> None:
    policy = Policy(
        waves=(Wave(share_bp=10_000),),
        soak_s=0,
        failure_limit=0,
        failure_rate=0,
        silence_s=0,
        silence_limit=0,
        on_failure="recall",
        probation_s=0,
    )
    plain = Rollout(id="d-0", group="line-1", package="app", version="1.2.0", counter=12, policy=policy)
    store = SqlStore(url)
    with store.begin() as work:
        work.put_devices(devices)
        for number in range(deployments):
            work.put_rollout(replace(plain, id=f"d-{number}"))
    store.close()


def known(store: SqlStore, name: str = "node-1") -> Device:
    with store.read() as reads:
        device = reads.device(name)
    assert device is not None
    return device


def test_everything_that_a_device_says_is_stored(broker: RunningBroker, database: str) -> None:
    node = ReportingDevice()
    enrol(database, node.enrolled())
    with (
        receiving(database, LinkSettings(url=broker.url)) as (link, store, _),
        Peer(broker.host, broker.port, "node-1") as peer,
    ):
        until(lambda: link.connected)
        peer.publish(T.of(topics.AVAILABILITY, device="node-1"), b"online", retain=True)
        peer.publish(T.of(topics.STATE, device="node-1"), b'{"time":1,"stage":"idle"}', retain=True)
        peer.publish(T.of(topics.HEARTBEAT, device="node-1"), b'{"time":1}', qos=0)
        peer.publish(T.of(topics.TELEMETRY, device="node-1"), b'{"cpu_percent":1.5}', qos=0)
        peer.publish(T.of(topics.HEALTH, device="node-1"), b'{"time":1,"verdict":"ok","checks":[]}')
        peer.publish(REPORT, node.report())

        def kinds() -> set[str]:
            with store.read() as reads:
                return {reading.kind for reading in reads.readings("node-1")}

        until(lambda: kinds() == {"state", "heartbeat", "telemetry", "health"})
        until(lambda: known(store).available and known(store).report_counter == 1)
        assert known(store).installed == (node.enrolled().installed or known(store).installed)


def test_spoofed_replayed_and_malformed_messages_change_nothing_and_a_good_one_after_them_counts(
    broker: RunningBroker, database: str
) -> None:
    node, other = ReportingDevice(), ReportingDevice("node-2")
    enrol(database, node.enrolled(), other.enrolled())
    first = node.report()
    with (
        receiving(database, LinkSettings(url=broker.url)) as (link, store, registry),
        Peer(broker.host, broker.port, "attacker") as peer,
    ):
        until(lambda: link.connected)
        for payload in (first, first, other.report(), b"{", b"", b"\xff" * 70_000, ReportingDevice().report()):
            peer.publish(REPORT, payload)
        peer.publish("fleet/v1/devices/NODE/report", first)
        peer.publish(T.of(topics.REPORT, device="stranger"), first)
        peer.publish(REPORT, node.report(why="still here"))
        until(lambda: known(store).why == "still here")
        assert known(store).report_counter == 2
        assert known(store, "node-2") == other.enrolled()

        def dropped(kind: str, code: str) -> float | None:
            return registry.get_sample_value("fairlead_ingest_dropped_total", {"kind": kind, "code": code})

        assert (dropped("report", "replay"), dropped("report", "signature"), dropped("report", "parse")) == (1, 2, 2)
        assert (dropped("report", "size"), dropped("report", "unknown-node"), dropped("unknown", "schema")) == (1, 1, 1)


@contextmanager
def serving(database: str, broker: RunningBroker) -> Iterator["subprocess.Popen[str]"]:
    """The same in a process of its own, connected."""
    argv = [sys.executable, "-c", SERVE, database, broker.url, FLEET]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "connected\n"
            yield process
        finally:
            process.kill()


def _stored(database: str) -> Callable[[], int]:
    def count() -> int:
        store = SqlStore(database)
        try:
            with store.read() as reads:
                return sum(len(reads.votes(rollout.id)) for rollout in reads.rollouts())
        finally:
            store.close()

    return count


def test_kill_9_of_the_server_loses_no_message_that_the_broker_took(tmp_path: Path, database: str) -> None:
    """Each report is about another deployment, so that a lost one would be missing for ever."""
    node, total = ReportingDevice(), 120
    enrol(database, node.enrolled(), deployments=total)
    stored = _stored(database)
    config = "allow_anonymous true\nmax_queued_messages 100000\nlog_type none"
    with mosquitto(tmp_path, config=config) as broker:
        with serving(database, broker) as first, Peer(broker.host, broker.port, "node-1") as peer:
            for number in range(total):
                peer.publish(REPORT, node.report(attempt=attempt(f"d-{number}")))
                if number == total // 3:
                    first.send_signal(signal.SIGKILL)
                    first.wait()
        with serving(database, broker):
            until(lambda: stored() == total)


def test_kill_9_of_the_broker_loses_no_message_that_it_took(tmp_path: Path, database: str) -> None:
    node, total = ReportingDevice(), 60
    enrol(database, node.enrolled(), deployments=total)
    stored = _stored(database)
    with mosquitto(tmp_path) as broker, receiving(database, LinkSettings(url=broker.url)) as (link, _, _):
        until(lambda: link.connected)
        for begin, end in ((0, total // 2), (total // 2, total)):
            with Peer(broker.host, broker.port, "node-1") as peer:
                for number in range(begin, end):
                    peer.publish(REPORT, node.report(attempt=attempt(f"d-{number}")))
            until(lambda end=end: stored() == end)
            broker.kill()
            until(lambda: not link.connected)
            broker.restart()
            until(lambda: link.connected)
        assert stored() == total


def test_the_production_broker_with_certificates(tmp_path: Path, database: str) -> None:
    node = ReportingDevice()
    enrol(database, node.enrolled())
    with tls_broker(tmp_path / "broker") as broker:
        certificate, key = broker.services.issue_service(SERVER).write(tmp_path / "server", "server")
        settings = LinkSettings(
            url=f"mqtts://{HOST}:{broker.settings.services.port}",
            ca_file=broker.services.ca_file,
            cert_file=certificate,
            key_file=key,
        )
        with receiving(database, settings) as (link, store, _), broker.device("node-1") as peer:
            until(lambda: link.connected)
            manifest = T.of(topics.MANIFEST, group="line-1")
            peer.subscribe(manifest)
            link.publish(manifest, bytes(100_000), retain=True, qos=1)
            assert peer.next().payload == bytes(100_000)
            peer.publish(REPORT, node.report())
            until(lambda: known(store).report_counter == 1)


def test_a_broker_with_another_certificate_is_not_trusted(tmp_path: Path, database: str) -> None:
    with tls_broker(tmp_path / "broker") as broker:
        settings = LinkSettings(
            url=f"mqtts://{HOST}:{broker.settings.services.port}", ca_file=broker.devices.ca_file, connect_s=1.0
        )
        with receiving(database, settings) as (link, _, _):
            log = broker.home / "log"
            until(lambda: "alert" in log.read_text() or "error" in log.read_text().lower())
            assert not link.connected


def test_the_link_is_connected_once_the_broker_has_taken_its_subscriptions() -> None:
    """What a device says before that is not for us: whoever waits for `connected` must not believe otherwise."""
    with socket.create_server((HOST, 0)) as listener:
        link = MqttLink(LinkSettings(url=f"mqtt://{HOST}:{listener.getsockname()[1]}"), T, SystemClock())
        ears = Ingest(MemoryStore(), IngestSettings(fleet=FLEET), IngestMetrics(CollectorRegistry()), on_reply=print)
        connected = threading.Event()
        link.start(ears, on_connected=lambda _: connected.set(), on_retained=lambda *_: None)
        try:
            broker, _ = listener.accept()
            with broker:
                assert broker.recv(4_096)[0] == 0x10
                broker.sendall(packet(0x20, b"\x00\x00\x00"))
                subscribe = broker.recv(4_096)
                assert subscribe[0] == 0x82
                assert not (link.connected or connected.is_set())
                body = 2 if subscribe[1] < 0x80 else 3
                granted = bytes(len(subscriptions(T)))
                broker.sendall(packet(0x90, subscribe[body : body + 2] + b"\x00" + granted))
                assert connected.wait(30)
                assert link.connected
        finally:
            link.stop()
