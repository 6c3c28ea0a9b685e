"""An ordinary MQTT client for tests, and a socket that says whatever a test wants."""

import queue
import socket
import ssl
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WAIT_S = 60.0
"""Only bounds a hang."""
V311 = MQTTProtocolVersion.MQTTv311
V5 = MQTTProtocolVersion.MQTTv5


class RefusedError(Exception):
    """The broker answered CONNECT with this reason, or cut the connection."""


@dataclass(frozen=True)
class Message:
    """One delivery."""

    topic: str
    payload: bytes
    retain: bool


class Peer:
    """A connected client; leaving its `with` block disconnects it in order."""

    def __init__(
        self,
        host: str,
        port: int,
        client_id: str,
        *,
        protocol: MQTTProtocolVersion = V311,
        clean: bool = True,
        tls: ssl.SSLContext | None = None,
        username: str | None = None,
        password: str | None = None,
        will: tuple[str, bytes] | None = None,
        keepalive_s: int = 60,
    ) -> None:
        self.messages: queue.Queue[Message] = queue.Queue()
        self._answer: queue.Queue[str] = queue.Queue()
        self._granted: queue.Queue[list[int]] = queue.Queue()
        self.gone = threading.Event()
        v5 = protocol is V5
        kept = {} if v5 else {"clean_session": clean}
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, reconnect_on_failure=False, **kept
        )
        self.client.on_message = lambda _c, _u, m: self.messages.put(Message(m.topic, m.payload, m.retain))
        self.client.on_connect = lambda _c, _u, _f, reason, _p: self._answer.put(str(reason))
        self.client.on_disconnect = self._lost
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self._granted.put([code.value for code in codes])
        if tls is not None:
            self.client.tls_set_context(tls)
        if username is not None:
            self.client.username_pw_set(username, password)
        if will is not None:
            self.client.will_set(*will, qos=1, retain=True)
        options = {}
        if v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else 3_600
            options = {"clean_start": clean, "properties": properties}
        self.client.connect(host, port, keepalive=keepalive_s, **options)
        self.client.loop_start()
        answer = self._answer.get(timeout=WAIT_S)
        if answer != "Success":
            self.close()
            raise RefusedError(answer)

    def _lost(self, _client, _data, _flags, reason, _properties) -> None:
        self.gone.set()
        self._answer.put(f"lost: {reason}")

    def subscribe(self, topic: str, qos: int = 1) -> int:
        """Subscribe; the granted QoS, or 128 and more where it was refused."""
        self.client.subscribe(topic, qos)
        return self._granted.get(timeout=WAIT_S)[0]

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait until the broker has it."""
        self.client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(WAIT_S)

    def next(self) -> Message:
        """The next delivery."""
        return self.messages.get(timeout=WAIT_S)

    def until(self, topic: str) -> list[Message]:
        """Every delivery up to and including the first on `topic`."""
        seen = [self.next()]
        while seen[-1].topic != topic:
            seen.append(self.next())
        return seen

    def close(self) -> None:
        """Disconnect in order."""
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Cut the connection without DISCONNECT, so that the broker publishes the will."""
        self.client.on_disconnect = None
        sock = self.client.socket()
        self.client.loop_stop()
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def packet(first: int, body: bytes) -> bytes:
    """One MQTT packet from its first byte and its body."""
    length, out = len(body), bytearray([first])
    while True:
        length, low = divmod(length, 128)
        out.append(low | (0x80 if length else 0))
        if not length:
            return bytes(out) + body


def text(value: str) -> bytes:
    """A length-prefixed MQTT string."""
    data = value.encode()
    return len(data).to_bytes(2) + data


def connect_packet(client_id: str = "raw", *, keepalive_s: int = 0) -> bytes:
    """A plain CONNECT of MQTT 3.1.1 with a clean session."""
    return packet(0x10, text("MQTT") + bytes([4, 2]) + keepalive_s.to_bytes(2) + text(client_id))


def say(host: str, port: int, *data: bytes) -> bytes:
    """Send bytes on a new connection and return everything until the broker closes it."""
    with socket.create_connection((host, port), timeout=WAIT_S) as sock:
        try:
            for part in data:
                sock.sendall(part)
            heard = b""
            while part := sock.recv(65_536):
                heard += part
        except ConnectionError:
            return b""
        return heard
