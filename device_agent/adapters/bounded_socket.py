"""A socket for paho that never holds more of one MQTT packet than the agent allows.

paho collects a packet in memory before anyone can judge its size, and MQTT 3.1.1 has no way to tell the broker a limit.
So this reads the framing (MQTT 3.1.1 and 5, section 2.1): a PUBLISH beyond the limit is passed on with its topic and
packet id but an empty payload, which is acknowledged like any other and means nothing; its bytes are dropped as they
arrive. Reading in blocks instead of paho's single bytes also saves it most of its system calls.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

_BLOCK: Final = 16 * 1024
_PUBLISH: Final = 0x30


class Socket(Protocol):
    """What is used of a plain or TLS socket."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: Any, /) -> int: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def setblocking(self, flag: bool, /) -> None: ...


class BoundedSocket:
    """Wraps `inner`; packets over `most` bytes arrive without payload, and `oversized(topic, size)` is called."""

    def __init__(self, inner: Socket, *, most: int, version: int, oversized: Callable[[bytes, int], None]) -> None:
        self._inner, self._most, self._version, self._oversized = inner, most, version, oversized
        self._raw = bytearray()
        """Received, not yet framed: at most a packet's head."""
        self._ready = bytearray()
        """Framed, for paho."""
        self._pass = 0
        """Bytes of the current packet that still go to paho."""
        self._skip = 0
        """Bytes of the current packet that are still to be dropped."""
        self.alert = ""
        """What the peer's TLS said when it hung up: why it did not like this device's certificate, say."""

    def recv(self, size: int) -> bytes:
        """At most `size` bytes; b"" where the peer has closed; BlockingIOError where nothing is there yet."""
        while not self._ready:
            block = self._receive()
            if not block:
                return b""
            self._raw += block
            self._frame()
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        return taken

    def pending(self) -> int:
        """Bytes that `recv` can give without the network; a poll of the descriptor does not show them."""
        inner: Any = self._inner
        return len(self._ready) + (inner.pending() if hasattr(inner, "pending") else 0)

    def send(self, data: Any) -> int:
        """Hand over to the inner socket; where that fails, what the peer had said before is read first."""
        try:
            return self._inner.send(data)
        except OSError:
            with suppress(OSError):
                self._raw += self._receive()
                self._frame()
            raise

    def close(self) -> None:
        """Close the inner socket."""
        self._inner.close()

    def fileno(self) -> int:
        """Descriptor of the inner socket."""
        return self._inner.fileno()

    def setblocking(self, flag: bool) -> None:
        """As of the inner socket."""
        self._inner.setblocking(flag)

    def _receive(self) -> bytes:
        try:
            return self._inner.recv(_BLOCK)
        except OSError as error:
            self.alert = str(getattr(error, "reason", None) or "")
            raise

    def _frame(self) -> None:
        """Sort what was received into what paho gets and what is dropped."""
        while self._raw:
            if self._pass:
                self._pass -= self._move(self._pass)
            elif self._skip:
                dropped = min(self._skip, len(self._raw))
                del self._raw[:dropped]
                self._skip -= dropped
            elif not self._begin():
                return

    def _move(self, most: int) -> int:
        part = self._raw[:most]
        self._ready += part
        del self._raw[: len(part)]
        return len(part)

    def _begin(self) -> bool:
        """Read a packet's head; False where more bytes are needed for it."""
        head = _length(self._raw)
        if head is None:
            return False
        start, length = head
        if start + length <= self._most:
            self._pass = start + length
            return True
        if self._raw[0] & 0xF0 != _PUBLISH:
            raise ConnectionAbortedError("the broker sent a packet that is larger than any should be")
        return self._shorten(start, length)

    def _shorten(self, start: int, length: int) -> bool:
        if len(self._raw) < start + 2:
            return False
        topic = int.from_bytes(self._raw[start : start + 2], "big")
        kept = 2 + topic + (2 if self._raw[0] & 0x06 else 0)
        if kept > length:
            raise ConnectionAbortedError("the broker sent a packet that is not MQTT")
        if len(self._raw) < start + kept:
            return False
        self._oversized(bytes(self._raw[start + 2 : start + 2 + topic]), start + length)
        body = self._raw[start : start + kept] + (b"\0" if self._version == 5 else b"")
        self._ready += self._raw[:1] + _encoded(len(body)) + body
        del self._raw[: start + kept]
        self._skip = length - kept
        return True


def _length(raw: bytearray) -> tuple[int, int] | None:
    """Where the packet's body starts and how long it is; None where the header is not whole yet."""
    value = 0
    for index in range(1, 5):
        if index >= len(raw):
            return None
        value |= (raw[index] & 0x7F) << (7 * (index - 1))
        if raw[index] < 0x80:
            return index + 1, value
    raise ConnectionAbortedError("the broker sent a packet that is not MQTT")


def _encoded(length: int) -> bytes:
    encoded = bytearray()
    while True:
        length, digit = length >> 7, length & 0x7F
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(encoded)
