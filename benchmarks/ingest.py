"""How fast the server stores what devices send at QoS 1, beside `mosquitto_sub` that only receives it.

    python -m benchmarks.ingest [--messages 20000] [--runs 5] [--directory DIR]

One publisher sends all messages through a mosquitto as fast as it takes them, to a subscriber that is connected. The
time runs from the first message until the subscriber has the last one: `mosquitto_sub` has printed it, or the server's
own link and ingest have committed it to SQLite (WAL, synchronous=FULL) and acknowledge it after the commit. Runs
alternate; medians are printed. All three programs share the machine's cores, as they do on a small server.
"""

import argparse
import json
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger
from prometheus_client import CollectorRegistry
from securesystemslib.signer import CryptoSigner

from fleet_protocol.envelope import REPORT_TYPE, sign
from fleet_protocol.messages import AttemptReport, Installed, Report
from fleet_protocol.payload import to_payload
from fleet_protocol.topics import HEALTH, REPORT, Topics, TopicType
from server.adapters.clock import SystemClock
from server.adapters.mqtt import LinkSettings, MqttLink
from server.adapters.sql.store import SqlStore
from server.domain.fleet import Device
from server.services.ingest import Ingest, IngestSettings
from server.services.ingest_metrics import IngestMetrics
from tests.fakes.brokers import RunningBroker, mosquitto

BAR = 0.5
BAR_PER_S = 2_000
DEVICES = 5_000
"""More than one batch holds, so that no batch has two messages of one device."""
BROKER = """allow_anonymous true
max_inflight_messages 0
max_queued_messages 0
persistence false
autosave_on_changes false
log_type none
"""
"""Without what the tests' broker writes down for them."""
TOPICS = Topics()
_SETTLE_S = 0.3
_LONGEST_S = 120.0
Message = tuple[str, bytes]


def main() -> int:
    """Print the figures; status 1 where a bar is missed."""
    options = _options()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    missed = False
    with _directory(options.directory) as home:
        signers = {f"node-{number:04}": CryptoSigner.generate_ed25519() for number in range(DEVICES)}
        print(f"{options.messages} messages of {DEVICES} devices, QoS 1, medians of {options.runs} runs, in {home}")
        for title, kind, make in (("plain health", HEALTH, _health), ("signed reports", REPORT, _report)):
            messages = [make(signers, number) for number in range(options.messages)]
            size = statistics.mean(len(payload) for _, payload in messages)
            pairs = [_pair(home / f"{kind.name}-{run}", kind, messages, signers) for run in range(options.runs)]
            theirs, ours = (statistics.median(rates) for rates in zip(*pairs, strict=True))
            missed = missed or ours < BAR_PER_S or (kind is HEALTH and ours / theirs < BAR)
            print(f"{title}, {size:.0f} bytes")
            print(f"  mosquitto_sub        {theirs:8,.0f} msg/s")
            print(f"  committed to SQLite  {ours:8,.0f} msg/s   ratio {ours / theirs:.2f}")
    print(f"bars: ratio {BAR} for plain messages, {BAR_PER_S:,} msg/s for both: {'missed' if missed else 'held'}")
    return int(missed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="where the database is written; default: a temporary directory")
    return parser.parse_args()


def _pair(
    home: Path, kind: TopicType, messages: list[Message], signers: dict[str, CryptoSigner]
) -> tuple[float, float]:
    """Messages per second of mosquitto_sub, and of the server."""
    home.mkdir(parents=True)
    stream = _stream(home, messages)
    with mosquitto(home, config=BROKER) as broker:
        theirs = _measure_sub(broker, kind, stream, len(messages))
    with mosquitto(home, config=BROKER) as broker:
        ours = _measure_server(broker, home, kind, stream, len(messages), signers)
    return theirs, ours


def _measure_sub(broker: RunningBroker, kind: TopicType, stream: Path, messages: int) -> float:
    command = ["mosquitto_sub", "-h", broker.host, "-p", str(broker.port), "-i", "sub", "-c", "-q", "1"]
    command += ["-t", TOPICS.filter(kind)]
    subprocess.run([*command, "-E"], check=True)
    with subprocess.Popen([*command, "-C", str(messages)], stdout=subprocess.DEVNULL) as subscriber:
        time.sleep(_SETTLE_S)
        started_s = time.perf_counter()
        publish(broker, stream, messages)
        subscriber.wait(timeout=_LONGEST_S)
        return messages / (time.perf_counter() - started_s)


def _measure_server(
    broker: RunningBroker, home: Path, kind: TopicType, stream: Path, messages: int, signers: dict[str, CryptoSigner]
) -> float:
    store = SqlStore(f"sqlite:///{home}/fairlead.db")
    with store.begin() as work:
        work.put_devices([_device(name, signer) for name, signer in signers.items()])
    with _server(broker, store) as (registry, link):
        labels = {"kind": kind.name}
        _until(lambda: link.connected)
        time.sleep(_SETTLE_S)
        started_s = time.perf_counter()
        publish(broker, stream, messages)
        _until(lambda: registry.get_sample_value("fairlead_ingest_messages_total", labels) == messages)
        elapsed_s = time.perf_counter() - started_s
    store.close()
    return messages / elapsed_s


@contextmanager
def _server(broker: RunningBroker, store: SqlStore) -> Iterator[tuple[CollectorRegistry, MqttLink]]:
    registry = CollectorRegistry()
    ingest = Ingest(store, IngestSettings(fleet="acme"), IngestMetrics(registry), on_reply=lambda *_: None)
    link = MqttLink(LinkSettings(url=broker.url), TOPICS, SystemClock())
    ingest.start()
    link.start(ingest, on_connected=lambda _: None, on_retained=lambda *_: None)
    try:
        yield registry, link
    finally:
        ingest.stop()
        link.stop()


def _until(ask: Callable[[], bool]) -> None:
    end_s = time.monotonic() + _LONGEST_S
    while not ask():
        if time.monotonic() > end_s:
            raise SystemExit("the messages did not arrive")
        time.sleep(0.005)


def publish(broker: RunningBroker, stream: Path, messages: int) -> None:
    """Send a file of packets to the broker, and return when it has acknowledged every message."""
    command = [sys.executable, "-m", "benchmarks.flood", broker.host, str(broker.port), str(stream), str(messages)]
    subprocess.run(command, check=True, timeout=_LONGEST_S)


def _stream(home: Path, messages: list[Message]) -> Path:
    """What one publisher sends: CONNECT, and a PUBLISH at QoS 1 for each message."""
    packets = [_packet(0x10, _text("MQTT") + bytes([4, 2, 0, 0]) + _text("publisher"))]
    for number, (topic, payload) in enumerate(messages):
        packets.append(_packet(0x32, _text(topic) + struct.pack(">H", number % 65_535 + 1) + payload))
    path = home / "packets"
    path.write_bytes(b"".join(packets))
    return path


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def _packet(head: int, body: bytes) -> bytes:
    size, encoded = len(body), bytearray()
    while True:
        size, digit = divmod(size, 128)
        encoded.append(digit | (0x80 if size else 0))
        if not size:
            return bytes([head]) + bytes(encoded) + body


def _health(signers: dict[str, CryptoSigner], number: int) -> Message:
    name = list(signers)[number % len(signers)]
    checks = [{"name": "cpu", "value": 12.5, "threshold": 95.0, "verdict": "ok", "text": f"load of {number % 100} %"}]
    checks.append({"name": "disk", "value": 55.25, "threshold": 95.0, "verdict": "ok", "text": ""})
    payload = {"time": 1_763_000_000.5 + number, "verdict": "ok", "checks": checks}
    return TOPICS.of(HEALTH, device=name), json.dumps(payload, separators=(",", ":")).encode()


def _report(signers: dict[str, CryptoSigner], number: int) -> Message:
    name = list(signers)[number % len(signers)]
    report = Report(
        fleet="acme",
        device=name,
        boot="b-1",
        counter=number + 1,
        time="2026-11-23T06:00:00Z",
        group="line-1",
        sequence=57,
        root=1,
        installed=(Installed(package="my-service", version="1.2.0", counter=12, deployment="d-1"),),
        attempt=AttemptReport(
            deployment="d-1",
            package="my-service",
            version="1.2.0",
            counter=12,
            number=1,
            stage="idle",
            outcome="committed",
            code=None,
            detail="",
        ),
        attack=None,
        attacks={},
        why="up to date",
    )
    return TOPICS.of(REPORT, device=name), sign(to_payload(report), REPORT_TYPE, [signers[name]]).encode()


def _device(name: str, signer: CryptoSigner) -> Device:
    key = signer.public_key
    return Device(
        id=name,
        group="line-1",
        device_class="x86_64",
        key_id=key.keyid,
        public_key=key.to_dict(),
        enrolled_s=time.time(),
    )


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fairlead-ingest-", dir=given) as home:
        yield Path(home)


if __name__ == "__main__":
    sys.exit(main())
