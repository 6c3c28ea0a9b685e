"""paho's client behind a socket that reads in large pieces and takes the messages out before paho sees them.

paho spends most of its time on a PUBLISH with small reads, properties and locks. It speaks the rest of the protocol:
connecting, subscribing, publishing, keepalive. The only thing of paho's that is replaced is `Client._create_socket`,
by a socket that does what paho asks of one; a contract test holds it to that.
"""

import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from paho.mqtt.client import Client

from server.adapters.mqtt.framing import Framer, Publish

READ_SIZE: Final = 256 * 1024
WRITE_MOST: Final = 256 * 1024
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BufferedSocket:
    """A connected, non-blocking socket: `fill` reads from the network, `recv` gives paho what is for paho.

    Messages are in `publishes`. What is sent leaves with `flush`.
    """

    def __init__(self, inner: Any, framer: Framer) -> None:
        self._inner = inner
        self._framer = framer
        self._unsent = bytearray()
        self._end: OSError | None = None
        self._closed_by_peer = False

    def fill(self) -> None:
        """Read what has arrived, one large piece at the most. A lost connection is told by `recv`."""
        try:
            data = self._inner.recv(READ_SIZE)
            self._closed_by_peer = not data
            self._framer.feed(data)
        except _NOT_NOW:
            return
        except OSError as error:
            self._end = error

    @property
    def publishes(self) -> deque[Publish]:
        """Messages that have arrived; whoever handles one takes it out from the left."""
        return self._framer.publishes

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes for paho; raises BlockingIOError where there are none, returns b"" at the end."""
        others = self._framer.others
        if others:
            data = bytes(others[:size])
            del others[:size]
            return data
        if self._end is not None:
            raise self._end
        if self._closed_by_peer:
            return b""
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        """Take all of `data`, or raise BlockingIOError while too much waits to be sent."""
        if len(self._unsent) >= WRITE_MOST:
            raise BlockingIOError
        self._unsent += data
        return len(data)

    def acknowledge(self, mids: list[int]) -> None:
        """Send a PUBACK, in the form that both protocol versions know, for each packet id."""
        self._unsent += b"".join([b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids])

    def flush(self) -> None:
        """Send what the network takes now; raises OSError where the connection is gone."""
        while self._unsent:
            try:
                sent = self._inner.send(self._unsent)
            except _NOT_NOW:
                return
            del self._unsent[:sent]

    @property
    def unsent(self) -> int:
        """Bytes that wait for `flush`."""
        return len(self._unsent)

    @property
    def readable(self) -> bool:
        """Whether `recv` has something to give or to tell."""
        return bool(self._framer.others) or self._end is not None or self._closed_by_peer

    def pending(self) -> int:
        """Bytes that `fill` can read without the network's telling: a TLS record is decrypted as a whole."""
        return int(self._inner.pending()) if isinstance(self._inner, ssl.SSLSocket) else 0

    def close(self) -> None:
        """Send what the network still takes, and close."""
        with contextlib.suppress(OSError):
            self.flush()
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class BufferedClient(Client):
    """paho's client, driven from outside by `loop_read`, `loop_write` and `loop_misc`."""

    framer: Framer
    """Set before connecting, like `opener`."""
    opener: Callable[[], socket.socket]
    """Makes the connection, with TLS where it is wanted."""
    buffer: BufferedSocket | None = None

    def _create_socket(self) -> Any:
        self.buffer = BufferedSocket(self.opener(), self.framer)
        return self.buffer


def open_socket(host: str, port: int, *, timeout_s: float, tls: ssl.SSLContext | None) -> socket.socket:
    """A connection, its TLS handshake done; raises OSError, and leaves no socket behind then."""
    plain = socket.create_connection((host, port), timeout=timeout_s)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain if tls is None else tls.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise
