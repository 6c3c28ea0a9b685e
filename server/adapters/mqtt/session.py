"""One connection to the broker, from the first byte to its end.

1. Only the thread that runs the session touches paho's client; other threads put into queues and wake it.
2. A QoS 1 message is acknowledged only when its receiver says so, and only on the connection that it came on: after
   a new one the broker sends it again, and its packet id may by then stand for another message.
3. While the receiver has no room nothing is read, so that the broker keeps what it has (backpressure).
4. The session is connected once the broker has answered to its subscriptions: what devices say from then on is heard.
5. A message that was published is out of the outbox for good only when the broker has acknowledged it.
"""

import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from loguru import logger
from paho.mqtt.client import ConnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from server.adapters.mqtt.buffered import BufferedClient, BufferedSocket, open_socket
from server.adapters.mqtt.framing import Framer
from server.adapters.mqtt.outbox import Outbox, Outgoing
from server.adapters.mqtt.settings import LinkSettings
from server.adapters.mqtt.waker import Waker

IN_FLIGHT_MOST: Final = 20
"""Messages that wait for the broker's acknowledgement; mosquitto takes no more by default."""
_MISC_S: Final = 1.0
_UNPROVED_S: Final = 2.0
"""How long a broker may take to answer a version of MQTT that it was not seen to speak: amqtt waits for ever for the
rest of what it takes for a 3.1.1 CONNECT."""
_PACKET_MOST: Final = 8 * 1024 * 1024
_NETWORK: Final = "network"


class Session:
    """One connection with one protocol version. `run` returns when it is over.

    `on_connected` and `on_message` are called in the thread that runs it; `on_connected` is told whether the broker had
    kept the session that was there before; `on_message` takes topic, payload and what
    acknowledges the message, and returns False where there is no room: it is then asked again after some wake.
    `proved`: the broker was seen to speak this protocol version.
    """

    def __init__(
        self,
        settings: LinkSettings,
        protocol: MQTTProtocolVersion,
        filters: Sequence[tuple[str, int]],
        outbox: Outbox,
        waker: Waker,
        *,
        proved: bool,
        on_connected: Callable[[bool], None],
        on_message: Callable[[str, bytes, Callable[[], None]], bool],
    ) -> None:
        self._settings = settings
        self._answer_s = settings.connect_s if proved or settings.tls else _UNPROVED_S
        self._protocol = protocol
        self._filters = list(filters)
        self._outbox = outbox
        self._waker = waker
        self._connected = on_connected
        self._received = on_message
        self._client = self._make_client()
        self._acks: deque[int] = deque()
        self._in_flight: dict[int, Outgoing] = {}
        self._full = False
        """The receiver had no room for the oldest message."""
        self._watched = 0
        self._over = False
        self._kept = False
        self.accepted = False
        """The broker accepted the connection."""
        self.other_version = False
        """The broker asked for another protocol version, or did not answer to this one."""
        self.reason = ""
        """Why the connection is over."""

    def run(self, stop: threading.Event) -> None:
        """Connect and serve until the connection is lost or `stop` is set. Raises OSError where it can not connect.

        What was published and not acknowledged is back in the outbox afterwards.
        """
        with selectors.DefaultSelector() as selector:
            self._waker.register(selector)
            try:
                self._connect()
                self._serve(selector, stop)
            finally:
                self._close(selector)

    def _make_client(self) -> BufferedClient:
        settings, version_5 = self._settings, self._protocol == MQTTProtocolVersion.MQTTv5
        client = BufferedClient(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if version_5 else False,
            protocol=self._protocol,
        )
        client.framer = Framer(version_5=version_5, most=_PACKET_MOST)
        client.opener = self._open
        client.max_inflight_messages_set(IN_FLIGHT_MOST)
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        # Having this callback keeps paho from writing to the socket before its packets can leave together.
        client.on_socket_register_write = _ignore
        return client

    def _open(self) -> socket.socket:
        """Certificates are read anew for each connection, so that they can be renewed."""
        settings, context = self._settings, None
        if settings.tls:
            context = ssl.create_default_context(cafile=settings.ca_file)
            if settings.cert_file is not None:
                context.load_cert_chain(settings.cert_file, settings.key_file)
        return open_socket(settings.host, settings.port, timeout_s=settings.connect_s, tls=context)

    def _connect(self) -> None:
        options: dict[str, Any] = {}
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types there
            properties.SessionExpiryInterval = self._settings.session_s
            properties.MaximumPacketSize = _PACKET_MOST
            options = {"clean_start": False, "properties": properties}
        self._client.connect(self._settings.host, self._settings.port, self._settings.keepalive_s, **options)

    def _serve(self, selector: selectors.BaseSelector, stop: threading.Event) -> None:
        deadline_s = time.monotonic() + self._answer_s
        misc_s = time.monotonic()
        while not self._over and self._client.socket() is not None:
            self._send()
            if stop.is_set():
                self._client.disconnect()
                self._send()
                return
            self._wait(selector)
            now_s = time.monotonic()
            if not self.accepted and now_s > deadline_s:
                self._give_up("no answer to CONNECT")
            elif now_s - misc_s >= _MISC_S:
                misc_s = now_s
                self._client.loop_misc()

    def _close(self, selector: selectors.BaseSelector) -> None:
        self._watch(selector, 0)
        self._client.on_disconnect = None
        sock = self._client.socket()
        if sock is not None:
            sock.close()
        self._outbox.give_back(list(self._in_flight.values()))
        self._in_flight.clear()

    def _wait(self, selector: selectors.BaseSelector) -> None:
        """Wait for the network or a wake, and read what there is."""
        buffer = self._client.buffer
        if buffer is None:
            return
        reads = not self._full
        writes = self._client.want_write() or buffer.unsent > 0
        self._watch(selector, selectors.EVENT_READ * reads | selectors.EVENT_WRITE * writes)
        unread = reads and buffer.pending() > 0
        ready = selector.select(0 if unread else _MISC_S)
        self._waker.clear()
        if unread or any(key.data == _NETWORK and mask & selectors.EVENT_READ for key, mask in ready):
            buffer.fill()
            while buffer.readable and self._client.socket() is not None:
                self._client.loop_read()

    def _watch(self, selector: selectors.BaseSelector, events: int) -> None:
        sock = self._client.socket()
        if events == self._watched or sock is None:
            return
        if not self._watched:
            selector.register(sock.fileno(), events, _NETWORK)
        elif not events:
            selector.unregister(sock.fileno())
        else:
            selector.modify(sock.fileno(), events, _NETWORK)
        self._watched = events

    def _send(self) -> None:
        """Hand over what arrived, acknowledge what is stored, publish what waits; all of it leaves together."""
        client, buffer = self._client, self._client.buffer
        if buffer is None:
            return
        self._full = not self._deliver(buffer)
        acks = [self._acks.popleft() for _ in range(len(self._acks))]
        buffer.acknowledge(acks)
        while self.accepted and len(self._in_flight) < IN_FLIGHT_MOST:
            message = self._outbox.take()
            if message is None:
                break
            info = client.publish(message.topic, message.payload, qos=message.qos, retain=message.retain)
            if message.qos:
                self._in_flight[info.mid] = message
        if client.want_write():
            client.loop_write()
        try:
            buffer.flush()
        except OSError as error:
            self._give_up(str(error))

    def _deliver(self, buffer: BufferedSocket) -> bool:
        """Hand over messages in their order; False where there is no room for the next."""
        publishes = buffer.publishes
        while publishes:
            message = publishes[0]
            ack = partial(self._acknowledge, message.mid) if message.mid else self._waker.wake
            if not self._received(message.topic.decode("utf-8", "replace"), message.payload, ack):
                return False
            publishes.popleft()
        return True

    def _acknowledge(self, mid: int) -> None:
        """Called by any thread, also long after this connection has ended (rule 2)."""
        self._acks.append(mid)
        self._waker.wake()

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self.other_version = not self.accepted
        self._over = True

    def _on_connect(self, _c: object, _u: object, flags: ConnectFlags, reason: ReasonCode, _p: object) -> None:
        if reason.is_failure:
            self.reason = f"refused: {reason}"
            self.other_version = reason == "Unsupported protocol version"
            return
        self.accepted, self._kept = True, bool(flags.session_present)
        self._client.subscribe(self._filters)

    def _on_disconnect(self, _c: object, _u: object, _flags: object, reason: ReasonCode, _p: object) -> None:
        if not self.reason:
            self.reason = str(reason) if self.accepted else "no answer to CONNECT"
            self.other_version = not self.accepted

    def _on_subscribe(self, _c: object, _u: object, _mid: int, reasons: Sequence[ReasonCode], _p: object) -> None:
        for (topic_filter, _), reason in zip(self._filters, reasons, strict=False):
            if reason.is_failure:
                logger.error("the broker refuses the subscription to {}: {}", topic_filter, reason)
        self._connected(self._kept)

    def _on_publish(self, _c: object, _u: object, mid: int, reason: ReasonCode, _p: object) -> None:
        message = self._in_flight.pop(mid, None)
        if message is not None and reason.is_failure:
            logger.error("the broker refuses a message on {}: {}", message.topic, reason)


def _ignore(*_: object) -> None:
    """Nothing to do."""
