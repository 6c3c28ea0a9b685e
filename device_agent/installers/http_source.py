"""One HTTP exchange with one source: connects only to checked addresses, never waits longer than it was told.

urllib3's connections are used without its pools: a download needs one connection, whose address is chosen here.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Final

import urllib3.connection
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.exceptions import ProtocolError as BrokenBody
from urllib3.response import HTTPResponse

from device_agent.installers.addresses import AddressPolicy, Url
from fleet_protocol.errors import ProtocolError, TransportError

_CONNECT_S: Final = 10.0
_HEADERS_S: Final = 30.0
_REDIRECTS: Final = 5
_RETRY_AFTER_MOST_S: Final = 24 * 3600.0
_REDIRECT: Final = (301, 302, 303, 307, 308)
_BUSY: Final = (429, 503)


class Response:
    """Status, headers, and a body whose errors are TransportErrors."""

    def __init__(self, response: HTTPResponse, url: Url) -> None:
        self._response, self._url = response, url
        self.status = response.status

    def header(self, name: str) -> str | None:
        """The header's value, in any case of its name."""
        value: str | None = self._response.headers.get(name)
        return value

    def read(self, most: int) -> bytes:
        """What has arrived, 1 to `most` bytes; nothing at the end. Raises TransportError `slow` or `truncated`."""
        with _translated(self._url):
            return self._response.read1(most)

    def close(self) -> None:
        """Let go of the connection: a response that ends it owns it."""
        self._response.close()


@contextmanager
def get(url: Url, policy: AddressPolicy, headers: Mapping[str, str], idle_s: float) -> Iterator[Response]:
    """The response to a GET, after at most five redirects, each of which is checked; `idle_s` bounds each wait.

    Raises ProtocolError `url`; TransportError `unreachable`, `busy` (429, 503), `slow`, `truncated` or `refused` (any
    other status than 200, 206 and 416).
    """
    for _ in range(_REDIRECTS + 1):
        with ExitStack() as stack:
            connection = stack.enter_context(closing(_connection(url, idle_s)))
            response = stack.enter_context(closing(_exchange(connection, url, policy, headers, idle_s)))
            if response.status not in _REDIRECT:
                _check_status(response, url)
                yield response
                return
            url = policy.follow(url, response.header("Location") or "")
    raise ProtocolError("url", f"more than {_REDIRECTS} redirects")


def _connection(url: Url, idle_s: float) -> urllib3.connection.HTTPConnection:
    """Speaks HTTP on the socket that it is given, and opens none itself."""
    connection = urllib3.connection.HTTPConnection(url.host, url.port, timeout=idle_s)
    connection.auto_open = 0
    return connection


def _exchange(
    connection: urllib3.connection.HTTPConnection,
    url: Url,
    policy: AddressPolicy,
    headers: Mapping[str, str],
    idle_s: float,
) -> Response:
    connected = _connect(url, policy, idle_s)
    connection.sock = connected
    with _translated(url), _at_most(connected, _HEADERS_S):
        if url.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(connected, server_hostname=url.host)
        fields = {"Host": url.authority, **headers}
        connection.request("GET", url.path, headers=fields, preload_content=False, decode_content=False)
        return Response(connection.getresponse(), url)


def _connect(url: Url, policy: AddressPolicy, idle_s: float) -> socket.socket:
    reasons = []
    for address in policy.resolve(url.host, url.port):
        try:
            connected = socket.create_connection((address, url.port), timeout=min(_CONNECT_S, idle_s))
        except OSError as error:
            reasons.append(f"{address}: {error}")
            continue
        connected.settimeout(idle_s)
        return connected
    raise TransportError("unreachable", f"{url.origin}: {'; '.join(reasons)}"[:300])


@contextmanager
def _translated(url: Url) -> Iterator[None]:
    """Errors of the network and its libraries as what they mean here."""
    try:
        yield
    except (TimeoutError, ReadTimeoutError):
        raise TransportError("slow", f"{url.origin} sends nothing") from None
    except ssl.SSLError as error:
        raise TransportError("unreachable", f"{url.origin}: {error}"[:300]) from None
    except (OSError, http.client.RemoteDisconnected, BrokenBody) as error:
        raise TransportError("truncated", f"{url.origin}: the connection was cut: {error}"[:300]) from None
    except (HTTPError, http.client.HTTPException) as error:
        raise TransportError("refused", f"{url.origin}: {type(error).__name__}: {error}"[:300]) from None


@contextmanager
def _at_most(connected: socket.socket, limit_s: float) -> Iterator[None]:
    """Cut the connection when the block takes too long, however busily the other side drips."""
    second = connected.dup()

    def cut() -> None:
        with suppress(OSError):
            second.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(limit_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        second.close()


def _check_status(response: Response, url: Url) -> None:
    if response.status in _BUSY:
        wish_s = _retry_after_s(response.header("Retry-After") or "")
        raise TransportError("busy", f"{url.origin} answers {response.status}", retry_after_s=wish_s)
    if response.status not in (200, 206, 416):
        raise TransportError("refused", f"{url.origin} answers {response.status}")
    if response.header("Content-Encoding") not in (None, "identity"):
        raise TransportError("refused", f"{url.origin} sends another encoding than was asked for")


def _retry_after_s(text: str) -> float | None:
    """Seconds or an HTTP date (RFC 9110, 10.2.3), at most a day; None for anything else."""
    if text.isascii() and text.isdecimal():
        wish_s = float(text[:9])
    else:
        try:
            wish_s = parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return min(max(0.0, wish_s), _RETRY_AFTER_MOST_S)
