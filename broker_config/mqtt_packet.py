"""MQTT 3.1.1 packets as a client may send them, checked before a broker parses them.

Rules:
 P1. a packet is refused by its header where it is longer than allowed, before its body is read;
 P2. what passes has the flags, lengths and strings of section 2 and 3 of the standard, and no byte more;
 P3. checking never raises anything but ProtocolError.

Source: MQTT Version 3.1.1, OASIS Standard, 29 October 2014.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from fleet_protocol.errors import ProtocolError

PROTOCOL_LEVEL: Final = 4
HEADER_MOST: Final = 5
"""Bytes of the longest fixed header: one of type and flags, four of length."""


class PacketType(IntEnum):
    """The packets that a client may send."""

    CONNECT = 1
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    UNSUBSCRIBE = 10
    PINGREQ = 12
    DISCONNECT = 14


_FLAGS: Final = dict.fromkeys(PacketType, 0) | {
    PacketType.PUBREL: 2,
    PacketType.SUBSCRIBE: 2,
    PacketType.UNSUBSCRIBE: 2,
}
_EMPTY: Final = (PacketType.PINGREQ, PacketType.DISCONNECT)


@dataclass(frozen=True, slots=True)
class Header:
    """A fixed header: the packet's type, its flags and how many bytes follow."""

    kind: PacketType
    flags: int
    length: int


@dataclass(frozen=True, slots=True)
class Connect:
    """What a CONNECT says about its connection."""

    level: int
    client_id: str
    clean: bool
    keepalive_s: int
    keepalive_at: int
    """Where in the body the two bytes of the keep-alive stand."""


def read_header(data: bytes, *, max_size: int) -> Header | None:
    """The fixed header at the start of `data`, or None where more bytes are needed.

    Raises ProtocolError `parse` for a type or flags that a client may not send, `size` for a body
    of more than `max_size` bytes (P1).
    """
    kind, flags = _kind(data[0] >> 4), data[0] & 0x0F
    if kind is PacketType.PUBLISH:
        if flags & 0x06 == 0x06 or flags & 0x0E == 0x08:
            raise ProtocolError("parse", "flags of PUBLISH")
    elif flags != _FLAGS[kind]:
        raise ProtocolError("parse", f"flags of {kind.name}")
    length, shift = 0, 0
    for byte in data[1:HEADER_MOST]:
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    else:
        if len(data) >= HEADER_MOST:
            raise ProtocolError("parse", "the remaining length has more than four bytes")
        return None
    if length > max_size:
        raise ProtocolError("size", f"a {kind.name} of {length} bytes, at most {max_size} are allowed")
    return Header(kind, flags, length)


def check_body(header: Header, body: bytes) -> None:
    """Raise ProtocolError `parse` unless `body` is one whole, well-formed packet of its kind (P2)."""
    fields = _Fields(body)
    if header.kind is PacketType.PUBLISH:
        _check_publish(header, fields)
        return
    if header.kind is PacketType.CONNECT:
        read_connect(body)
        return
    if header.kind not in _EMPTY:
        fields.packet_id()
    if header.kind in (PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE):
        _check_filters(header, fields)
    fields.end()


def read_connect(body: bytes) -> Connect:
    """What a CONNECT says, or ProtocolError `parse`. Other protocol levels are told by `level` alone."""
    fields = _Fields(body)
    name, level = fields.text(), fields.byte()
    if name not in ("MQTT", "MQIsdp"):
        raise ProtocolError("parse", "protocol name")
    if name != "MQTT" or level != PROTOCOL_LEVEL:
        return Connect(0 if name != "MQTT" else level, "", clean=True, keepalive_s=0, keepalive_at=0)
    flags, keepalive_at = fields.byte(), fields.at
    keepalive_s = fields.number()
    will, clean = bool(flags & 0x04), bool(flags & 0x02)
    if flags & 0x01 or flags & 0x18 == 0x18 or (not will and flags & 0x38) or flags & 0xC0 == 0x40:
        raise ProtocolError("parse", "flags in CONNECT")
    client_id = fields.text()
    if not client_id and not clean:
        raise ProtocolError("parse", "a session that is kept needs a client id")
    if will:
        _check_topic(fields.text())
        fields.data()
    if flags & 0x80:
        fields.text()
    if flags & 0x40:
        fields.data()
    fields.end()
    return Connect(level, client_id, clean, keepalive_s, keepalive_at)


class _Fields:
    """Reads a body field by field; every read past its end is a ProtocolError."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self._body):
            raise ProtocolError("parse", "the packet ends inside a field")
        self.at += count
        return self._body[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self.take(2))

    def packet_id(self) -> int:
        number = self.number()
        if number == 0:
            raise ProtocolError("parse", "packet id 0")
        return number

    def data(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        try:
            text = self.data().decode("utf-8")
        except UnicodeDecodeError:
            raise ProtocolError("parse", "a string is not UTF-8") from None
        if "\0" in text:
            raise ProtocolError("parse", "a string holds NUL")
        return text

    @property
    def left(self) -> int:
        return len(self._body) - self.at

    def end(self) -> None:
        if self.left:
            raise ProtocolError("parse", "bytes after the end of the packet")


def _kind(number: int) -> PacketType:
    try:
        return PacketType(number)
    except ValueError:
        raise ProtocolError("parse", f"packet type {number} is not a client's") from None


def _check_publish(header: Header, fields: _Fields) -> None:
    _check_topic(fields.text())
    if header.flags & 0x06:
        fields.packet_id()


def _check_topic(topic: str) -> None:
    if not topic or topic.startswith("$") or "+" in topic or "#" in topic:
        raise ProtocolError("parse", "not a topic that a client may publish")


def _check_filters(header: Header, fields: _Fields) -> None:
    if not fields.left:
        raise ProtocolError("parse", "no topic filter")
    while fields.left:
        if not fields.text():
            raise ProtocolError("parse", "empty topic filter")
        if header.kind is PacketType.SUBSCRIBE and fields.byte() > 2:
            raise ProtocolError("parse", "QoS of a subscription")
