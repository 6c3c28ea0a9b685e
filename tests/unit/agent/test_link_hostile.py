"""A hostile broker: whatever it sends, the link lives on and connects again."""

import random
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.adapters.mqtt import MqttLink
from device_agent.settings import AgentSettings, BrokerSettings, Intervals
from tests.fakes.agent_link import HeardListener
from tests.fakes.agent_ports import quiet_log
from tests.fakes.waiting import until

CONNACK = b"\x20\x03\x00\x00\x00"
TOPIC = b"fleet/v1/x"


def _publish(topic: bytes, rest: bytes, *, flags: int = 0) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + rest
    return bytes([0x30 | flags, len(body)]) + body


SAYINGS = {
    "no MQTT at all": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a refusal": b"\x20\x03\x00\x87\x00",
    "half a CONNACK": b"\x20\x03\x00",
    "a topic that is not UTF-8": CONNACK + _publish(b"\xff\xfe", b"\0payload"),
    "a wildcard topic": CONNACK + _publish(b"fleet/#", b"\0payload"),
    "an empty topic": CONNACK + _publish(b"", b"\0payload"),
    "a topic alias from nowhere": CONNACK + _publish(b"", b"\x03\x23\x00\x05payload"),
    "properties beyond the packet": CONNACK + _publish(TOPIC, b"\x7fpayload"),
    "quality of service 3": CONNACK + _publish(TOPIC, b"\x00\x01\0payload", flags=6),
    "an acknowledgement of nothing": CONNACK + b"\x40\x02\x7f\xff",
    "a malformed SUBACK": CONNACK + b"\x90\x01\x00",
    "an UNSUBACK of nothing": CONNACK + b"\xb0\x03\x00\x01\x00",
    "a packet of an unknown type": CONNACK + b"\xf0\x00" + b"\x00\x00",
    "a CONNECT": CONNACK + b"\x10\x00",
    "an endless length": CONNACK + b"\x30\xff\xff\xff\xff\xff",
    "a second CONNACK": CONNACK + CONNACK,
    "a DISCONNECT": CONNACK + b"\xe0\x02\x8e\x00",
}


class HostileBroker:
    """Says one thing to each connection and closes it; the connections after that are accepted and kept."""

    def __init__(self, sayings: list[bytes]) -> None:
        self._sayings = list(sayings)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._kept: list[socket.socket] = []
        self.left = len(sayings)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            connection.settimeout(20)
            version = connection.recv(4_096)[8:9]
            answer = CONNACK if version == b"\x05" else b"\x20\x02\x00\x00"
            if not self._sayings:
                connection.sendall(answer)
                self._kept.append(connection)
                continue
            saying = self._sayings.pop(0)
            connection.sendall(answer + saying.removeprefix(CONNACK) if saying.startswith(CONNACK) else saying)
            connection.shutdown(socket.SHUT_WR)
            self._drain(connection)
            self.left -= 1

    @staticmethod
    def _drain(connection: socket.socket) -> None:
        with connection:
            try:
                while connection.recv(4_096):
                    pass
            except OSError:
                return

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        for connection in self._kept:
            connection.close()


def _survives(sayings: list[bytes], tmp_path: Path) -> None:
    broker = HostileBroker(sayings)
    settings = AgentSettings(
        device="node-1",
        fleet="acme",
        device_class="x86_64",
        state_dir=tmp_path,
        broker=replace(BrokerSettings(), port=broker.port),
        intervals=Intervals(reconnect_most_s=0.01),
    )
    link = MqttLink(settings, HeardListener(), quiet_log())
    link.subscribe(("fleet/v1/x",))
    link.start()
    try:
        until(lambda: broker.left == 0 and link.connected, deadline_s=60)
    finally:
        link.stop()
        broker.close()


def test_each_saying(tmp_path: Path) -> None:
    _survives(list(SAYINGS.values()), tmp_path)


@pytest.fixture
def noise() -> list[bytes]:
    source = random.Random(2026)
    whole = list(SAYINGS.values())
    altered = []
    for _ in range(150):
        saying = bytearray(source.choice(whole) + source.randbytes(source.randrange(40)))
        for _ in range(source.randrange(3)):
            saying[source.randrange(len(saying))] = source.randrange(256)
        altered.append(bytes(saying))
    return altered


def test_noise(noise: list[bytes], tmp_path: Path) -> None:
    _survives(noise, tmp_path)
