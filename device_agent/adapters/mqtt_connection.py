"""One MQTT connection from CONNECT to its end, moved by its caller's thread, which wakes only when there is cause.

paho's own loops wake at least once a second. Here a poll waits for the socket, for the bell of what is outgoing, and
for the one moment at which the keepalive is due.
"""

import select
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from device_agent.adapters.bounded_socket import BoundedSocket
from device_agent.adapters.outgoing import Message, Outgoing
from device_agent.log import Log
from device_agent.ports import LinkListener
from device_agent.settings import AgentSettings, BrokerSettings
from fleet_protocol import limits, topics
from fleet_protocol.messages import OFFLINE, ONLINE

LARGEST: Final = limits.TARGETS_SIZE + 64 * 1024
"""No packet beyond this reaches the agent: the largest document with its topic."""
_CONNECT_S: Final = 10.0
_UNPROVED_S: Final = 2.0
"""How long a broker may take to answer CONNECT in a version of MQTT that it was never seen to speak."""
_PATIENCE_MOST_S: Final = 60.0
_SESSION_EXPIRY_S: Final = 7 * 24 * 3600
_GOODBYE_S: Final = 2.0
_SLACK_S: Final = 0.05
"""paho notes the time of a byte a little later than the poll that showed it."""


class Connection:
    """Owns one paho client and its socket."""

    def __init__(
        self,
        settings: AgentSettings,
        outgoing: Outgoing,
        listener: LinkListener,
        log: Log,
        *,
        version: int,
        proved: bool,
        failures: int,
        answered: Callable[[], None],
    ) -> None:
        """`answered` is called once the broker has spoken this MQTT version, whether or not it took the device.

        `failures` is how many connections in a row came to nothing: each makes this one more patient, because what
        looks like a dead broker may be a slow link (RFC 6298 has TCP itself wait for seconds after one lost packet).
        """
        self._settings, self._outgoing, self._listener, self._log = settings, outgoing, listener, log
        self._connect_s = _patience_s(_CONNECT_S, failures)
        known = proved or settings.broker.tls
        self._connack_s = self._connect_s if known else _patience_s(_UNPROVED_S, failures)
        self._availability = settings.topics.of(topics.AVAILABILITY, device=settings.device)
        self._unacknowledged: dict[int, Message] = {}
        self._answered = answered
        self.reached = False
        """The broker's host took the TCP (and TLS) connection."""
        self.taken = False
        """The broker took this device."""
        self.open = False
        self.why = ""
        self._heard_s = self._spoke_s = time.monotonic()
        self._client = self._make_client(version)

    def run(self) -> None:
        """Connect and move bytes until the connection is lost or the link is to stop. May raise what paho raises."""
        try:
            connect(self._client, self._settings.broker)
            self.reached = True
            self._serve()
        finally:
            was_open, self.open = self.open, False
            self._outgoing.online = False
            self._outgoing.give_back(list(self._unacknowledged.values()))
            self._client.on_disconnect = None
            sock = self._client.socket()
            if sock is not None:
                sock.close()
            if was_open and not self._outgoing.stopping:
                self._listener.lost(self.why or "the connection broke")

    def _make_client(self, version: int) -> "BoundedClient":
        client = BoundedClient(self._settings.device, version, self._listener.oversized)
        client.connect_timeout = self._connect_s
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.will_set(self._availability, OFFLINE, qos=topics.AVAILABILITY.qos, retain=True)
        return client

    def _serve(self) -> None:
        sock: Any = self._client.wire
        connack_by_s = time.monotonic() + self._connack_s
        poll = select.poll()
        poll.register(self._outgoing.bell, select.POLLIN)
        while self._holds(sock) and not self._outgoing.stopping:
            poll.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
            self._turn(sock, poll, self._keepalive_due_s() if self.open else connack_by_s)
            if not self.open and self._holds(sock) and time.monotonic() >= connack_by_s:
                self.why = "the broker did not answer CONNECT"
                return
        if sock.alert:
            self.why = f"TLS: {sock.alert.replace('_', ' ').lower()}"
            self.reached = "ALERT" not in sock.alert  # a refusal by TLS, which no other version of MQTT would change
        if self.open and self._holds(sock):
            self._goodbye(sock, poll)

    def _holds(self, sock: Any) -> bool:
        """Whether paho still has the socket: it lets go of one that is lost."""
        return self._client.socket() is sock

    def _turn(self, sock: Any, poll: select.poll, until_s: float) -> None:
        """Wait for cause to act, and act on it."""
        ready = dict(poll.poll(max(0.0, until_s - time.monotonic()) * 1000))
        now_s = time.monotonic()
        if self._outgoing.bell in ready:
            self._outgoing.hush()
        if sock.fileno() in ready:
            self._heard_s = now_s
            self._move(sock, ready[sock.fileno()])
        if self.open and self._holds(sock):
            self._send()
            if now_s >= self._keepalive_due_s():
                self._client.loop_misc()
                self._heard_s = self._spoke_s = now_s

    def _keepalive_due_s(self) -> float:
        return min(self._heard_s, self._spoke_s) + self._client.keepalive + _SLACK_S

    def _move(self, sock: Any, ready: int) -> None:
        if ready & select.POLLOUT:
            self._client.loop_write()
        if ready & ~select.POLLOUT:
            self._client.loop_read()
            while self._holds(sock) and sock.pending():
                self._client.loop_read()
                if self.open:
                    self._send()

    def _send(self) -> None:
        made, dropped = self._outgoing.take_changes()
        if dropped:
            self._client.unsubscribe(dropped)
        if made:
            self._client.subscribe([(name, 1) for name in made])
        messages = self._outgoing.take()
        if made or dropped or messages:
            self._spoke_s = time.monotonic()
        for message in messages:
            self._publish(message)

    def _publish(self, message: Message) -> None:
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain)
        if message.qos and info.rc in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            self._unacknowledged[info.mid] = message

    def _goodbye(self, sock: Any, poll: select.poll) -> None:
        """Say `offline` oneself, wait a little for the acknowledgements, and disconnect."""
        self._publish(Message(self._availability, OFFLINE, topics.AVAILABILITY.qos, retain=True, sent=None))
        until_s = time.monotonic() + _GOODBYE_S
        while self._unacknowledged and self._holds(sock) and time.monotonic() < until_s:
            self._turn(sock, poll, until_s)
        self._client.disconnect()

    # -- what paho calls, in the thread that moves it --

    def _on_connect(
        self, client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self.why = f"the broker refused the connection: {reason}"
            if "protocol version" not in str(reason).lower():
                self._answered()
            client.disconnect()
            return
        self._answered()
        self.open = self.taken = True
        filters = self._outgoing.all_filters()
        if filters:
            client.subscribe([(name, 1) for name in filters])
        self._publish(Message(self._availability, ONLINE, topics.AVAILABILITY.qos, retain=True, sent=None))
        self._outgoing.online = True
        self._listener.connected()

    def _on_disconnect(
        self, _client: Client, _data: Any, flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server or not self.why:
            early = not (self.open or flags.is_disconnect_packet_from_server)
            self.why = "the broker hung up before it answered CONNECT" if early else str(reason)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._listener.received(message.topic, bytes(message.payload))

    def _on_publish(self, _client: Client, _data: Any, mid: int, _reason: ReasonCode, _properties: Properties) -> None:
        message = self._unacknowledged.pop(mid, None)
        if message is not None and message.sent is not None:
            message.sent()

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self._log.warning("subscription", "the broker refused one: this device will not hear of updates")


def _patience_s(first_s: float, failures: int) -> float:
    return float(min(_PATIENCE_MOST_S, first_s * 2.0 ** min(failures, 10)))


class BoundedClient(Client):
    """paho with a bound on what it collects of one packet; `oversized(topic, size)` is told of what went beyond."""

    def __init__(self, device: str, version: int, oversized: Callable[[str, int], None]) -> None:
        protocol = MQTTProtocolVersion(version)
        clean: dict[str, Any] = {} if version == MQTTProtocolVersion.MQTTv5 else {"clean_session": False}
        super().__init__(
            CallbackAPIVersion.VERSION2, client_id=device, protocol=protocol, reconnect_on_failure=False, **clean
        )
        self._oversized, self._version = oversized, version
        self.wire: BoundedSocket | None = None
        """The socket of the newest connection, also once paho has let go of it."""

    def _create_socket(self) -> Any:
        inner: Any = super()._create_socket()
        inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an acknowledgement must not wait for the next
        self.wire = BoundedSocket(inner, most=LARGEST, version=self._version, oversized=self._note_oversized)
        return self.wire

    def _create_socket_connection(self) -> socket.socket:
        # As bytes, a plain name is not taken through the tables of international names, which are large.
        host: Any = self._host.encode("ascii") if self._host.isascii() else self._host
        return socket.create_connection((host, self._port), timeout=self._connect_timeout)

    def _note_oversized(self, topic: bytes, size: int) -> None:
        self._oversized(topic.decode("utf-8", "replace"), size)


def connect(client: Client, broker: BrokerSettings) -> None:
    """Send CONNECT, for a session that outlives the connection. Raises OSError where the broker is not to be had."""
    _identify(client, broker)
    if client.protocol == MQTTProtocolVersion.MQTTv5:
        properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_EXPIRY_S
        properties.MaximumPacketSize = LARGEST
        client.connect(broker.host, broker.port, broker.keepalive_s, clean_start=False, properties=properties)
    else:
        client.connect(broker.host, broker.port, broker.keepalive_s)


def _identify(client: Client, broker: BrokerSettings) -> None:
    """Give the client what this device proves itself with; files are read anew, so that they can be renewed."""
    if broker.username is not None:
        password = broker.password_file.read_text(encoding="utf-8").strip() if broker.password_file else None
        client.username_pw_set(broker.username, password)
    if broker.tls:
        import ssl  # noqa: PLC0415 - OpenSSL is a third of the resident's memory; only those who use it pay

        files = [str(path) for path in (broker.ca_file, broker.cert_file, broker.key_file) if path]
        try:
            context = ssl.create_default_context(cafile=str(broker.ca_file) if broker.ca_file else None)
            if broker.cert_file is not None:
                context.load_cert_chain(broker.cert_file, broker.key_file)
        except OSError as error:
            raise OSError(f"{', '.join(files)}: {error.strerror or error}") from None
        client.tls_set_context(context)
