"""One client's connection, as the embedded broker is allowed to see it.

amqtt trusts its clients: it parses before it checks, waits for ever for a CONNECT, takes packets of any
size, and notices neither a keep-alive that lapsed nor a reader that stopped reading. This stands between.

Rules:
 G1. amqtt reads only whole packets that `mqtt_packet` passed; after the first bad one the stream ends;
 G2. a connection that sends no CONNECT, or no end of a packet it began, ends within `packet_s`;
 G3. a connection silent for 1.5 keep-alives ends, as section 3.1.2.10 of MQTT 3.1.1 asks;
 G4. a client that does not read is cut off after `drain_s`, so that nothing piles up for it;
 G5. whatever happens, the socket is closed once and `ended` is set.
"""

import asyncio
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

from amqtt.adapters import ReaderAdapter, WriterAdapter

from broker_config import mqtt_packet
from broker_config.mqtt_packet import Connect, Header, PacketType
from fleet_protocol.errors import FleetError, ProtocolError, TransportError

T = TypeVar("T")
_WRONG_LEVEL: Final = bytes([0x20, 2, 0, 1])
"""CONNACK, return code 1: unacceptable protocol version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """Bounds on one connection. Sizes in bytes, times in seconds."""

    packet_size: int
    packet_s: float = 30.0
    drain_s: float = 30.0


class GuardedStream(ReaderAdapter, WriterAdapter):  # type: ignore[misc]  # amqtt has no types
    """Both directions of one socket, for amqtt (G1 to G5)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: StreamLimits) -> None:
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._checked = b""
        self._over = False
        self._keepalive_s: float | None = None
        self._drain_lock = asyncio.Lock()
        self.ended = asyncio.Event()
        self.disconnected = False
        """The client said DISCONNECT, after which it may say nothing more and has no will."""
        self.refusal: FleetError | None = None
        """Why the connection was ended by us; None where the client ended it."""

    async def greet(self) -> Connect | None:
        """Read the CONNECT and keep it for amqtt; None where the connection is to be closed instead."""
        try:
            packet = await self._packet(PacketType.CONNECT, self._limits.packet_s)
        except (FleetError, asyncio.IncompleteReadError, OSError) as error:
            self._refuse(error)
            return None
        header, body = packet
        connect = mqtt_packet.read_connect(body)
        if connect.level != mqtt_packet.PROTOCOL_LEVEL:
            self.write(_WRONG_LEVEL)
            await self.drain()
            return None
        if connect.keepalive_s:
            self._keepalive_s = 1.5 * connect.keepalive_s
        at = connect.keepalive_at
        self._checked = _encode(header, body[:at] + b"\0\0" + body[at + 2 :])
        return connect

    def end(self) -> None:
        """Cut the connection off; amqtt sees the end of the stream and publishes the will."""
        self._over = True
        self._writer.transport.abort()

    async def read(self, n: int = -1) -> bytes:
        """Exactly `n` checked bytes; raises IncompleteReadError at the end of the stream (G1)."""
        while len(self._checked) < n:
            if self._over:
                # amqtt cancels what it has not begun when the stream ends: let it begin what came before the end.
                await asyncio.sleep(0)
                raise asyncio.IncompleteReadError(self._checked, n)
            try:
                header, body = await self._packet(None, self._keepalive_s)
                self._checked += _encode(header, body)
                self.disconnected = self._over = header.kind is PacketType.DISCONNECT
            except (FleetError, asyncio.IncompleteReadError, OSError) as error:
                self._refuse(error)
        data, self._checked = self._checked[:n], self._checked[n:]
        return data

    def feed_eof(self) -> None:
        """End the stream for amqtt."""
        self._over = True

    def write(self, data: bytes) -> None:
        """Queue bytes for the client; nothing after the end."""
        if not self._writer.is_closing():
            self._writer.write(data)

    async def drain(self) -> None:
        """Return once the client has taken enough, or raise ConnectionResetError after `drain_s` (G4)."""
        try:
            async with asyncio.timeout(self._limits.drain_s), self._drain_lock:
                await self._writer.drain()
        except TimeoutError:
            self._refuse(TransportError("slow", "the client does not read what it subscribed to"))
            self.end()
            raise ConnectionResetError from None

    def get_peer_info(self) -> tuple[str, int] | None:
        """Address and port of the client, or None where it is gone already."""
        peer = self._writer.get_extra_info("peername")
        return (peer[0], peer[1]) if peer else None

    def get_ssl_info(self) -> ssl.SSLObject | None:
        """No TLS here: the embedded broker listens on loopback only."""
        return None

    async def close(self) -> None:
        """Send what is queued and close the socket; more than once is once (G5)."""
        self._over = True
        self._writer.close()
        try:
            async with asyncio.timeout(self._limits.drain_s):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()

    def _refuse(self, error: Exception) -> None:
        self._over = True
        if isinstance(error, FleetError):
            self.refusal = self.refusal or error

    async def _packet(self, wanted: PacketType | None, idle_s: float | None) -> tuple[Header, bytes]:
        """The next whole packet, checked. Before its first byte `idle_s` may pass, after it `packet_s` (G2, G3)."""
        first = await _in_time(self._reader.readexactly(1), idle_s, "nothing was received for too long")
        header = await _in_time(self._header(first), self._limits.packet_s, "a packet was begun and not ended")
        if (header.kind is PacketType.CONNECT) is not (wanted is PacketType.CONNECT):
            raise ProtocolError("parse", "the first packet, and only the first, is a CONNECT")
        rest = self._reader.readexactly(header.length)
        body = await _in_time(rest, self._limits.packet_s, "a packet was begun and not ended")
        mqtt_packet.check_body(header, body)
        return header, body

    async def _header(self, data: bytes) -> Header:
        while (header := mqtt_packet.read_header(data, max_size=self._limits.packet_size)) is None:
            data += await self._reader.readexactly(1)
        return header


async def _in_time(wanted: Awaitable[T], limit_s: float | None, otherwise: str) -> T:
    try:
        async with asyncio.timeout(limit_s):
            return await wanted
    except TimeoutError:
        raise TransportError("timeout", otherwise) from None


def _encode(header: Header, body: bytes) -> bytes:
    length, size = bytearray(), header.length
    while True:
        size, low = divmod(size, 128)
        length.append(low | (0x80 if size else 0))
        if not size:
            return bytes([header.kind << 4 | header.flags]) + bytes(length) + body
