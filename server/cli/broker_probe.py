"""Looks at a broker as an ordinary subscriber does: it publishes nothing and takes over no name of the fleet."""

import queue
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fleet_protocol.errors import TransportError

_WAIT_S: Final = 10.0
_QUIET_S: Final = 0.5
"""No further retained message for so long means that there is none."""
VERSION_TOPIC: Final = "$SYS/broker/version"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAccount:
    """Where the broker is and who asks: with a certificate, or nobody in particular."""

    url: str
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def secure(self) -> bool:
        """Whether the address asks for TLS."""
        return self.url.startswith("mqtts://")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; raises TransportError `unreachable` for what is no broker's address."""
        try:
            parts = urlsplit(self.url)
            if parts.scheme in ("mqtt", "mqtts") and parts.hostname:
                return parts.hostname, parts.port or (8883 if self.secure else 1883)
        except ValueError:
            pass
        raise TransportError("unreachable", f"{self.url} is not mqtt://host:port or mqtts://host:port")


@dataclass(slots=True)
class BrokerProbe:
    """A connection to a broker; leaving its `with` block ends it."""

    account: BrokerAccount
    protocol: str = ""
    _client: Any = None
    _connected: "queue.Queue[str]" = field(default_factory=queue.Queue)
    _heard: "queue.Queue[tuple[str, bytes]]" = field(default_factory=queue.Queue)

    def __enter__(self) -> Self:
        """Connect with MQTT 5 or, where the broker has only that, 3.1.1; TransportError where neither goes."""
        reason = ""
        for name, version in (("5", MQTTProtocolVersion.MQTTv5), ("3.1.1", MQTTProtocolVersion.MQTTv311)):
            reason = self._connect(version)
            if reason == "Success":
                self.protocol = name
                return self
            self._end()
        raise TransportError("refused", f"the broker at {self.account.url} refuses this connection: {reason}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def retained(self, topic_filter: str, qos: int) -> dict[str, bytes]:
        """The retained messages that match, by topic, as the broker hands them out at this QoS."""
        self._client.subscribe(topic_filter, qos)
        heard = list(self._until_quiet())
        self._client.unsubscribe(topic_filter)
        return {topic: payload for topic, payload in heard if paho.topic_matches_sub(topic_filter, topic)}

    def _hear(self, message: paho.MQTTMessage) -> None:
        if message.retain:
            self._heard.put((message.topic, bytes(message.payload)))

    def _until_quiet(self) -> Iterator[tuple[str, bytes]]:
        end_s = time.monotonic() + _WAIT_S
        while time.monotonic() < end_s:
            try:
                yield self._heard.get(timeout=_QUIET_S)
            except queue.Empty:
                return

    def _connect(self, version: MQTTProtocolVersion) -> str:
        host, port = self.account.address
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"doctor-{secrets.token_hex(4)}",
            protocol=version,
            reconnect_on_failure=False,
        )
        client.on_connect = lambda _c, _u, _f, reason, _p: self._connected.put(str(reason))
        client.on_disconnect = lambda _c, _u, _f, reason, _p: self._connected.put(f"connection lost: {reason}")
        client.on_message = lambda _c, _u, message: self._hear(message)
        try:
            if self.account.secure:
                context = _context(self.account)
                _shake_hands(context, host, port)
                client.tls_set_context(context)
            client.connect(host, port, keepalive=30)
        except (OSError, ssl.SSLError) as error:
            raise TransportError("unreachable", f"no broker answers at {self.account.url}: {error}") from None
        client.loop_start()
        self._client = client
        try:
            return self._connected.get(timeout=_WAIT_S)
        except queue.Empty:
            return "no answer"

    def _end(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None
        self._connected = queue.Queue()


def certificate_end_s(account: BrokerAccount) -> float:
    """When the broker's certificate expires, epoch seconds; TransportError where it shows none."""
    return server_certificate_end_s(*account.address)


def server_certificate_end_s(host: str, port: int) -> float:
    """When the certificate of a TLS server expires, whoever signed it."""
    from cryptography import x509  # noqa: PLC0415 - only TLS needs it

    try:
        pem = ssl.get_server_certificate((host, port), timeout=_WAIT_S)
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()
    except (OSError, ValueError) as error:
        raise TransportError("unreachable", f"{host}:{port} shows no certificate: {error}") from None


def _shake_hands(context: ssl.SSLContext, host: str, port: int) -> None:
    """Verify the broker before paho does, which forgets its socket where that fails."""
    with socket.create_connection((host, port), timeout=_WAIT_S) as plain:
        context.wrap_socket(plain, server_hostname=host).close()


def _context(account: BrokerAccount) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if account.ca_file is None else str(account.ca_file))
    if account.cert_file is not None:
        context.load_cert_chain(account.cert_file, account.key_file)
    return context
