"""Cuts the broker's bytes into MQTT packets (versions 3.1.1 and 5, section 2.1); pure.

1. A PUBLISH at QoS 0 or 1 is decoded here; everything else is for paho, byte for byte and in order.
2. Not more than `most` bytes of one packet are ever kept. The rest of a longer PUBLISH is dropped as it arrives: its
   receiver gets the payload cut short, still longer than any topic allows, and refuses it. 3.1.1 has no other way.
3. However the bytes are cut by the network, the packets are the same.
"""

from collections import deque
from typing import Final, NamedTuple

_PUBLISH: Final = 0x30
_LENGTH_DIGITS: Final = 4


class FramingError(OSError):
    """The peer does not speak MQTT; the connection is of no use any more."""


class Publish(NamedTuple):
    """One message from the broker. `mid` is 0 at QoS 0."""

    topic: bytes
    mid: int
    payload: bytes


class Framer:
    """Feed it bytes; take `publishes` and `others` out of it."""

    def __init__(self, *, version_5: bool, most: int) -> None:
        self._version_5 = version_5
        self._most = most
        self._begun = bytearray()
        """The beginning of a packet that has not arrived whole."""
        self._needed = 0
        """How much of that must be there before it is worth looking again."""
        self._skip = 0
        """Bytes still to be dropped of a packet that is too long."""
        self.publishes: deque[Publish] = deque()
        self.others = bytearray()
        """Whole packets for paho."""

    def feed(self, data: bytes) -> None:
        """Take what the network delivered; raises FramingError."""
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        if self._begun:
            self._begun += data
            if len(self._begun) < self._needed:
                return
            data = bytes(self._begun)
        at = self._packets(data)
        self._begun = bytearray(data[at:])

    def _packets(self, data: bytes) -> int:
        """Take every whole packet of `data`; returns where the first that is not whole begins."""
        at, end = 0, len(data)
        while end - at >= 2:
            header = (data[at + 1], at + 2) if data[at + 1] < 0x80 else _length(data, at + 1)
            if header is None:
                break
            size, body = header
            kept = min(size, self._most)
            if body + kept > end:
                self._needed = body + kept - at
                return at
            self._packet(data, at, body, body + kept, whole=kept == size)
            at = body + size
            if at > end:
                self._skip = at - end
                return end
        self._needed = 0
        return at

    def _packet(self, data: bytes, at: int, body: int, end: int, *, whole: bool) -> None:
        head = data[at]
        if head & 0xF0 == _PUBLISH and not head & 0x04:
            self.publishes.append(self._publish(head, data, body, end))
        elif whole:
            self.others += data[at:end]
        else:
            raise FramingError("the broker sent a packet that is too long")

    def _publish(self, head: int, data: bytes, at: int, end: int) -> Publish:
        topic_at = at + 2
        at = topic_at + int.from_bytes(data[at:topic_at], "big")
        topic, mid = data[topic_at:at], 0
        if head & 0x02:
            mid = int.from_bytes(data[at : at + 2], "big")
            at += 2
        if self._version_5:
            properties = _length(data, at)
            if properties is None:
                raise FramingError("the broker sent a PUBLISH without properties")
            at = properties[0] + properties[1]
        if at > end:
            raise FramingError("the broker sent a PUBLISH that ends before its topic does")
        return Publish(topic, mid, data[at:end])


def _length(data: bytes, at: int) -> tuple[int, int] | None:
    """A variable byte integer and where it ends; None where it has not arrived whole."""
    value = 0
    for digit in range(_LENGTH_DIGITS):
        if at + digit >= len(data):
            return None
        byte = data[at + digit]
        value |= (byte & 0x7F) << (7 * digit)
        if not byte & 0x80:
            return value, at + digit + 1
    raise FramingError("the broker sent a packet length of more than four digits")
