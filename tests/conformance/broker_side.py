"""The resident's half of the conformance client: a broker, the agent's link and its retained reader.

    python -m tests.conformance.broker_side REPOSITORY

Every line on standard input is a topic; the answer is what the agent's worker would get from its resident. Before it is
read, the document is copied from the suite's HTTP repository onto its retained topic, or cleared from it where the
repository has none. A process of its own, because the suite moves the clock of the client with `faketime`, under which
waits with a timeout do not work.
"""

import base64
import json
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

from device_agent.adapters.link_reader import LinkReader
from device_agent.adapters.mqtt import MqttLink
from device_agent.log import Log
from device_agent.settings import AgentSettings, BrokerSettings
from fleet_protocol.errors import TransportError
from fleet_protocol.topics import ROOT, TIMESTAMP, Topics
from tests.fakes.brokers import RunningBroker, mosquitto

TOPICS = Topics()
WAIT_S = 20.0


class Mirror:
    """Copies a document of the HTTP repository onto its retained topic when it is wanted."""

    def __init__(self, broker: RunningBroker, repository: str) -> None:
        self._repository = repository.rstrip("/")
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        for topic in (TOPICS.of(TIMESTAMP), TOPICS.of(ROOT, version=1)):
            self._retain(topic, b"a fleet always has this one")

    def copy(self, topic: str) -> None:
        """The broker holds what the repository holds."""
        address = TOPICS.parse(topic)
        role = address.values.get("role", address.type.name)
        version = address.values.get("version")
        name = f"{role}.json" if version is None else f"{version}.{role}.json"
        self._retain(topic, self._load(name))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _load(self, name: str) -> bytes:
        try:
            with urllib.request.urlopen(f"{self._repository}/{name}", timeout=WAIT_S) as answer:
                data: bytes = answer.read()
                return data
        except urllib.error.HTTPError as error:
            if error.code in (403, 404):
                return b""
            raise TransportError("refused", str(error)) from error
        except OSError as error:
            raise TransportError("unreachable", str(error)) from error

    def _retain(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1, retain=True).wait_for_publish(WAIT_S)


class Listener:
    """Hands the link's messages to the reader."""

    def __init__(self) -> None:
        self.reader: LinkReader | None = None
        self.up = threading.Event()

    def received(self, topic: str, payload: bytes) -> None:
        if self.reader is not None:
            self.reader.offer(topic, payload)

    def oversized(self, topic: str, size: int) -> None:
        sys.stderr.write(f"oversized: {topic}, {size} bytes\n")

    def connected(self) -> None:
        self.up.set()

    def lost(self, why: str) -> None:
        if self.reader is not None:
            self.reader.lost()


@contextmanager
def connected(broker: RunningBroker, state_dir: Path) -> Iterator[LinkReader]:
    """The agent's reader on the agent's link to this broker."""
    listener = Listener()
    settings = AgentSettings(
        device="conformance",
        fleet="conformance",
        device_class="any",
        state_dir=state_dir,
        broker=BrokerSettings(url=broker.url, host=broker.host, port=broker.port),
    )
    link = MqttLink(settings, listener, Log())
    listener.reader = LinkReader(link, TOPICS)
    link.start()
    try:
        if not listener.up.wait(WAIT_S):
            raise TransportError("unreachable", "the broker did not take the agent's connection")
        yield listener.reader
    finally:
        link.stop()


def answer(mirror: Mirror, reader: LinkReader, topic: str) -> dict[str, Any]:
    try:
        mirror.copy(topic)
        payload = reader.read(topic, timeout_s=WAIT_S)
    except TransportError as error:
        return {"topic": topic, "code": error.code, "detail": error.detail}
    return {"topic": topic, "payload": None if payload is None else base64.b64encode(payload).decode("ascii")}


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch, mosquitto(Path(scratch)) as broker:
        mirror = Mirror(broker, sys.argv[1])
        try:
            with connected(broker, Path(scratch)) as reader:
                for line in sys.stdin:
                    sys.stdout.write(json.dumps(answer(mirror, reader, line.strip())) + "\n")
                    sys.stdout.flush()
        finally:
            mirror.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
