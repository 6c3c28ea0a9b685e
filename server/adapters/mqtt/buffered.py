"""paho's client over a socket that reads and writes in large pieces.

paho reads a packet in three or more calls of `recv` and sends every acknowledgement by itself. The buffer stands where
paho expects a socket; what it must do is what paho 2 asks of `Client._create_socket`, and a test holds it to that.
"""

import contextlib
import socket
import ssl
from typing import Any, Final

from paho.mqtt.client import Client

READ_SIZE: Final = 256 * 1024
WRITE_MOST: Final = 256 * 1024


class BufferedSocket:
    """A connected socket whose small reads come from one large one, and whose small writes leave together.

    `recv` and `send` behave as those of a non-blocking socket. What was sent leaves with `flush`.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._read = b""
        self._at = 0
        self._unsent = bytearray()

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; raises BlockingIOError where there are none yet, returns b"" at the end."""
        at = self._at
        if at == len(self._read):
            self._read = self._inner.recv(READ_SIZE)
            at = 0
        data = self._read[at : at + size]
        self._at = at + len(data)
        return data

    def send(self, data: bytes) -> int:
        """Take all of `data`, or raise BlockingIOError while too much waits to be sent."""
        if len(self._unsent) >= WRITE_MOST:
            self.flush()
            if len(self._unsent) >= WRITE_MOST:
                raise BlockingIOError
        self._unsent += data
        return len(data)

    def flush(self) -> None:
        """Send what the network takes now; raises OSError where the connection is gone."""
        while self._unsent:
            try:
                sent = self._inner.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            del self._unsent[:sent]

    @property
    def unsent(self) -> int:
        """Bytes that wait for `flush`."""
        return len(self._unsent)

    def pending(self) -> int:
        """Bytes that can be read without asking the network."""
        inner = self._inner.pending() if hasattr(self._inner, "pending") else 0
        return len(self._read) - self._at + int(inner)

    def close(self) -> None:
        """Send what the network still takes, and close."""
        with contextlib.suppress(OSError):
            self.flush()
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class BufferedClient(Client):
    """paho's client, driven from outside by `loop_read`, `loop_write` and `loop_misc`."""

    buffer: BufferedSocket | None = None

    def _create_socket(self) -> Any:
        inner = super()._create_socket()
        if isinstance(inner, socket.socket) and inner.family in (socket.AF_INET, socket.AF_INET6):
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = BufferedSocket(inner)
        return self.buffer
