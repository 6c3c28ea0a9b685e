"""M2, M3, M7, M8, M9, M10, M11 and M13 on a real mosquitto with the rendered configuration and real certificates.

That something is *not* delivered is shown by order: the server's next message to the same client arrives, and
nothing came before it.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker_config.ca import Certificate
from broker_config.names import SERVER
from fleet_protocol.errors import FleetError
from fleet_protocol.topics import (
    ASSIGNMENT,
    COMMAND,
    DEVICE_TOPICS,
    MANIFEST,
    REPORT,
    STATE,
    TIMESTAMP,
    TOPIC_TYPES,
    Side,
    TopicType,
)
from tests.fakes.mqtt_peer import V5, V311, Message, Peer, RefusedError
from tests.fakes.ports import HOST
from tests.fakes.tls_broker import DASHBOARD, TlsBroker, tls_broker
from tests.fakes.waiting import until

SERVER_TOPICS = [kind for kind in TOPIC_TYPES if kind.publisher is Side.SERVER]
VALUES = {"version": 1, "group": "line-1", "device": "node-1", "role": "extra"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    with tls_broker(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture
def server(broker: TlsBroker) -> Iterator[Peer]:
    with broker.server() as connected:
        yield connected


def spelt(broker: TlsBroker, kind: TopicType, device: str = "node-1") -> str:
    names = {name: value for name, value in VALUES.items() if "{" + name + "}" in kind.pattern}
    if "device" in names:
        names["device"] = device
    return broker.topics.of(kind, **names)


def heard_before_end(broker: TlsBroker, server: Peer, device: Peer, name: str) -> list[Message]:
    """What the device has been sent when the server's next command reaches it."""
    end = broker.topics.of(COMMAND, device=name)
    device.subscribe(end)
    server.publish(end, b"end")
    return device.until(end)[:-1]


@pytest.mark.parametrize("kind", SERVER_TOPICS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("payload", [b"forged", b""], ids=["overwritten", "cleared"])
def test_m2_a_device_can_not_touch_a_servers_document(
    broker: TlsBroker, server: Peer, kind: TopicType, payload: bytes
) -> None:
    topic = spelt(broker, kind)
    server.publish(topic, b"true", retain=True)
    with broker.device("node-1") as device:
        device.publish(topic, payload, retain=True)
    server.subscribe(topic)
    assert server.next() == Message(topic, b"true", retain=True)
    server.publish(topic, b"", retain=True)


@pytest.mark.parametrize("kind", DEVICE_TOPICS, ids=lambda kind: kind.name)
def test_m2_a_device_can_not_speak_for_another(broker: TlsBroker, server: Peer, kind: TopicType) -> None:
    server.subscribe(broker.topics.filter(kind))
    with broker.device("node-2") as device:
        device.publish(spelt(broker, kind, "node-1"), b"forged", retain=True)
        device.publish(spelt(broker, kind, "node-2"), b"own")
        assert [m.topic for m in server.until(spelt(broker, kind, "node-2"))] == [spelt(broker, kind, "node-2")]


@pytest.mark.parametrize("protocol", [V311, V5], ids=["mqtt3", "mqtt5"])
def test_m3_a_will_has_no_more_rights_than_a_publish(broker: TlsBroker, server: Peer, protocol: object) -> None:
    manifest = broker.topics.of(MANIFEST, group="line-1")
    server.publish(manifest, b"true", retain=True)
    server.subscribe(broker.topics.filter(STATE))
    broker.device("node-1", will=(manifest, b"forged"), protocol=protocol).vanish()
    own = broker.topics.of(STATE, device="node-2")
    broker.device("node-2", will=(own, b"gone"), protocol=protocol).vanish()
    assert server.next().topic == own, "wills are published at all"
    server.subscribe(manifest)
    assert server.next() == Message(manifest, b"true", retain=True)
    for topic in (manifest, own):
        server.publish(topic, b"", retain=True)


@pytest.mark.parametrize(
    "wish", ["#", "fleet/#", "fleet/v1/devices/#", "fleet/v1/devices/+/report", "$share/g/fleet/v1/devices/+/report",
             "fleet/v1/devices/node-1/+", "fleet/v1/devices/node-1/command", "+/+/+/+/+"]
)  # fmt: skip
def test_m7_a_device_hears_nothing_of_others_whatever_it_subscribes_to(
    broker: TlsBroker, server: Peer, wish: str
) -> None:
    with broker.device("node-1") as victim, broker.device("node-2") as spy:
        spy.subscribe(wish)
        for kind in DEVICE_TOPICS:
            victim.publish(spelt(broker, kind, "node-1"), b"private")
        server.publish(broker.topics.of(COMMAND, device="node-1"), b"private")
        heard = heard_before_end(broker, server, spy, "node-2")
        assert not [m for m in heard if "node-1" in m.topic or m.payload == b"private"]


def test_m7_a_device_can_not_read_the_brokers_numbers(broker: TlsBroker, server: Peer) -> None:
    with broker.device("node-1") as device:
        device.subscribe("$SYS/#")
        server.subscribe("$SYS/broker/version")
        assert b"mosquitto" in server.next().payload
        assert heard_before_end(broker, server, device, "node-1") == []


def test_m7_a_spy_in_a_shared_subscription_takes_nothing_from_the_server(broker: TlsBroker, server: Peer) -> None:
    server.subscribe(broker.topics.filter(REPORT))
    with broker.device("node-1") as device, broker.device("node-2") as spy:
        spy.subscribe("$share/server/" + broker.topics.filter(REPORT))
        for number in range(10):
            device.publish(broker.topics.of(REPORT, device="node-1"), b"%d" % number)
        assert [server.next().payload for _ in range(10)] == [b"%d" % number for number in range(10)]


def test_a_device_reads_trust_any_manifest_and_what_is_said_to_it(broker: TlsBroker, server: Peer) -> None:
    with broker.device("node-1") as device:
        for kind in SERVER_TOPICS:
            topic = spelt(broker, kind)
            device.subscribe(topic)
            server.publish(topic, b"true")
            assert device.next() == Message(topic, b"true", retain=False)


@pytest.mark.parametrize("name", ["node/1", "+", "#", "Node-1", "", "-a", "a" * 65, "service.server", "a\n", "ä"])
def test_m8_the_authority_names_only_ids(broker: TlsBroker, name: str) -> None:
    before = broker.devices.issued()
    with pytest.raises(FleetError):
        broker.devices.issue_device(name)
    assert broker.devices.issued() == before


def signed_by(broker: TlsBroker, directory: str, common: str, *, days: int = 30, starts: int = -1) -> Certificate:
    """A certificate as a thief of an authority's key could make it: any name, any time, no extension."""
    home = broker.home / directory
    authority = x509.load_pem_x509_certificate((home / "ca.pem").read_bytes())
    thief = serialization.load_pem_private_key((home / "ca.key").read_bytes(), None)
    assert isinstance(thief, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=starts))
        .not_valid_after(now + timedelta(days=days))
        .sign(thief, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificate(made.public_bytes(serialization.Encoding.PEM), pem)


@pytest.mark.parametrize("common", ["+", "#", "node-1/state"])
def test_m8_a_wildcard_that_was_signed_after_all_gains_nothing(broker: TlsBroker, server: Peer, common: str) -> None:
    """The broker itself refuses `+` and `#`; `/` is why the authority must."""
    server.subscribe(broker.topics.filter(STATE))
    with broker.device("wild", issued=signed_by(broker, "device-ca", common)) as wild:
        for target in ("node-1", "node-2"):
            wild.publish(broker.topics.of(STATE, device=target), b"forged")
        with broker.device("node-3") as other:
            other.publish(broker.topics.of(STATE, device="node-3"), b"own")
        assert server.next().payload == b"own"


@pytest.mark.parametrize("protocol", [V311, V5], ids=["mqtt3", "mqtt5"])
def test_m9_a_client_id_is_not_taken_over(broker: TlsBroker, server: Peer, protocol: object) -> None:
    with broker.device("node-1") as victim:
        command = broker.topics.of(COMMAND, device="node-1")
        victim.subscribe(command)
        with broker.device("node-2", client_id="node-1", protocol=protocol):
            server.publish(command, b"for the victim")
            assert victim.next().payload == b"for the victim"
            assert not victim.gone.is_set()


def test_m9_a_kept_session_is_not_taken_over(broker: TlsBroker, server: Peer) -> None:
    command = broker.topics.of(COMMAND, device="node-1")
    with broker.device("node-1", clean=False) as victim:
        victim.subscribe(command)
    with broker.device("node-2", client_id="node-1", clean=False) as thief:
        server.publish(command, b"for the victim")
        assert heard_before_end(broker, server, thief, "node-2") == []
    with broker.device("node-1", clean=False) as victim:
        assert victim.next().payload == b"for the victim"
    broker.device("node-1").close()


def test_m9_a_device_called_server_is_not_the_server(broker: TlsBroker, server: Peer) -> None:
    with broker.device("server", client_id=SERVER):
        with broker.service(DASHBOARD, client_id=SERVER):
            server.subscribe(broker.topics.filter(STATE))
        assert not server.gone.is_set()


@pytest.mark.parametrize("name", ["node-1", SERVER, DASHBOARD])
def test_m10_a_user_name_in_connect_counts_for_nothing(broker: TlsBroker, server: Peer, name: str) -> None:
    server.subscribe(broker.topics.filter(STATE))
    with broker.device("node-2", username=name, password="x") as liar:
        liar.publish(broker.topics.of(STATE, device="node-1"), b"forged")
        liar.publish(broker.topics.of(STATE, device="node-2"), b"own")
        assert server.next().payload == b"own"


def refused(broker: TlsBroker, connect: Callable[[], Peer]) -> None:
    """The broker lets nobody in like that, and is there for whoever comes in properly."""
    with pytest.raises((RefusedError, ssl.SSLError, ConnectionError)):
        connect().close()
    broker.device("node-3").close()
    broker.service(DASHBOARD).close()


def test_m11_the_device_authority_makes_no_service(broker: TlsBroker) -> None:
    forged = signed_by(broker, "device-ca", SERVER)
    context = broker.tls("forged-server", forged)
    refused(broker, lambda: Peer(HOST, broker.settings.services.port, SERVER, tls=context, protocol=V5))


def test_m11_a_device_is_no_service_and_a_service_no_device(broker: TlsBroker) -> None:
    device = broker.tls("node-1", broker.devices.issue_device("node-1"))
    service = broker.tls(DASHBOARD, broker.services.issue_service(DASHBOARD))
    refused(broker, lambda: Peer(HOST, broker.settings.services.port, "node-1", tls=device, protocol=V5))
    refused(broker, lambda: Peer(HOST, broker.settings.devices.port, DASHBOARD, tls=service, protocol=V5))


def test_m13_no_plaintext(broker: TlsBroker) -> None:
    for port in (broker.settings.devices.port, broker.settings.services.port):
        refused(broker, lambda port=port: Peer(HOST, port, "node-1", protocol=V5))


def test_m13_no_certificate_no_connection(broker: TlsBroker) -> None:
    for port in (broker.settings.devices.port, broker.settings.services.port):
        context = broker.tls("nobody", None)
        refused(broker, lambda port=port, context=context: Peer(HOST, port, "node-1", tls=context, protocol=V5))


@pytest.mark.parametrize(("starts", "days"), [(-10, -1), (1, 10)], ids=["expired", "not yet valid"])
def test_m13_outside_its_time_a_certificate_does_not_connect(broker: TlsBroker, starts: int, days: int) -> None:
    issued = signed_by(broker, "device-ca", "node-1", starts=starts, days=days)
    refused(broker, lambda: broker.device("node-1", issued=issued))


def test_m13_a_device_refuses_a_broker_of_another_name_or_authority(broker: TlsBroker) -> None:
    port = broker.settings.devices.port
    right = broker.tls("node-1", broker.devices.issue_device("node-1"))
    with socket.create_connection((HOST, port)) as plain, pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        right.wrap_socket(plain, server_hostname="broker.example")
    wrong = broker.tls("node-1", broker.devices.issue_device("node-1"), trust=broker.devices.ca_file)
    with socket.create_connection((HOST, port)) as plain, pytest.raises(ssl.SSLCertVerificationError, match="issuer"):
        wrong.wrap_socket(plain, server_hostname=HOST)


def test_m13_an_old_tls_is_refused(broker: TlsBroker) -> None:
    context = broker.tls("node-1", broker.devices.issue_device("node-1"))
    with pytest.deprecated_call():
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    port = broker.settings.devices.port
    with socket.create_connection((HOST, port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname=HOST)


def test_a_dashboard_reads_readings_and_writes_nothing(broker: TlsBroker, server: Peer) -> None:
    state = broker.topics.of(STATE, device="node-1")
    with broker.service(DASHBOARD) as dashboard, broker.device("node-1") as device:
        for kind in TOPIC_TYPES:
            dashboard.publish(spelt(broker, kind), b"forged", retain=True)
        dashboard.subscribe("#")
        server.publish(broker.topics.of(COMMAND, device="node-1"), b"secret")
        server.publish(broker.topics.of(ASSIGNMENT, device="node-1"), b"secret")
        device.publish(broker.topics.of(REPORT, device="node-1"), b"secret")
        server.publish(broker.topics.of(TIMESTAMP), b"")
        device.publish(state, b"plain")
        assert b"secret" not in [m.payload for m in dashboard.until(state)]


def test_m13_a_revoked_certificate_is_refused_after_a_reload(tmp_path: Path) -> None:
    with tls_broker(tmp_path) as broker:
        stolen = broker.devices.issue_device("node-1")
        broker.device("node-1", issued=stolen).close()
        assert broker.devices.revoke("node-1") == 1
        broker.reload()
        until(lambda: not connects(broker, stolen))
        broker.device("node-2").close()
        broker.device("node-1", issued=broker.devices.issue_device("node-1")).close()


def connects(broker: TlsBroker, issued: Certificate) -> bool:
    try:
        broker.device("node-1", issued=issued).close()
    except (RefusedError, ssl.SSLError, ConnectionError):
        return False
    return True


def test_retained_documents_and_waiting_reports_outlive_a_restart(tmp_path: Path) -> None:
    with tls_broker(tmp_path) as broker:
        manifest, report = broker.topics.of(MANIFEST, group="line-1"), broker.topics.of(REPORT, device="node-1")
        with broker.server(clean=False) as server:
            server.publish(manifest, b"true", retain=True)
            server.subscribe(broker.topics.filter(REPORT))
        with broker.device("node-1") as device:
            for number in range(2_000):
                device.publish(report, b"%d" % number)
        broker.stop()
        broker.start()
        with broker.device("node-2") as device:
            device.subscribe(manifest)
            assert device.next().payload == b"true"
        with broker.server(clean=False) as server:
            assert [int(server.next().payload) for _ in range(2_000)] == list(range(2_000))


def test_a_packet_beyond_every_topic_ends_its_sender_only(broker: TlsBroker, server: Peer) -> None:
    with broker.device("node-1") as device, broker.device("node-2") as other:
        device.client.publish(broker.topics.of(STATE, device="node-1"), b"x" * 6_000_000, qos=0)
        until(device.gone.is_set)
        server.subscribe(broker.topics.filter(STATE))
        other.publish(broker.topics.of(STATE, device="node-2"), b"fine")
        assert server.next().payload == b"fine"
