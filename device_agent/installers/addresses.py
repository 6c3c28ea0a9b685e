"""Where this device may download from. The address of an artifact is not signed by the offline keys; the host's
owner decides by `allowed_hosts` what a manifest may make the device connect to.

1. Only http and https, without names or passwords in the address.
2. A host must be listed, or `*` must be, which stands for every host with public addresses only.
3. What counts is the address that is connected to: a name is resolved once, and exactly what was checked is used. What
   DNS says of a name is the network's word, as any captive portal has it: where that is not public no connection is
   made, but nobody is blamed. Who writes an address that is not public, or `localhost`, is.
4. Every redirect is checked like the first address; none leads from https to http.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from fleet_protocol.errors import FleetError, ProtocolError, TransportError
from fleet_protocol.ids import shown

_PORTS: Final = {"http": 80, "https": 443}
_PLAIN: Final = re.compile(r"[\x21-\x7e]{1,2048}")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\.?|[0-9A-Fa-f:.]{2,45}")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https address, parsed once; what is requested is built from these parts."""

    text: str
    scheme: str
    host: str
    port: int
    path: str
    """Path and query, as they are requested."""

    @property
    def origin(self) -> str:
        """Scheme, host and port: what a mirror is known by."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """Host and port as the `Host` field has them (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The hosts that this device may download from."""

    allowed_hosts: tuple[str, ...]

    def check(self, text: str) -> Url:
        """The parsed address, or ProtocolError `url` (rules 1 and 2)."""
        url = _parse(text)
        if not self._listed(url.host) and "*" not in self.allowed_hosts:
            raise ProtocolError("url", f"host {url.host} is not one that this device may download from")
        return url

    def follow(self, url: Url, location: str) -> Url:
        """The address that a redirect from `url` leads to, or ProtocolError `url` (rule 4)."""
        if not _PLAIN.fullmatch(location):
            raise ProtocolError("url", f"a redirect leads to {shown(location)}")
        target = self.check(urljoin(url.text, location))
        if (url.scheme, target.scheme) == ("https", "http"):
            raise ProtocolError("url", "a redirect leads from https to http")
        return target

    def resolve(self, host: str, port: int) -> list[str]:
        """The addresses to connect to: all of them, if all of them are allowed (rule 3).

        Raises ProtocolError `url`, or TransportError `unreachable` where the name does not resolve to what is allowed.
        """
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise TransportError("unreachable", f"{host} does not resolve: {error}") from None
        addresses = list(dict.fromkeys(str(row[4][0]) for row in rows))
        if not self._listed(host):
            for address in addresses:
                if not is_public(address):
                    raise _private(host, address)
        return addresses

    def _listed(self, host: str) -> bool:
        return host in {allowed.lower().rstrip(".").strip("[]") for allowed in self.allowed_hosts}


def is_public(text: str) -> bool:
    """Whether an address, and the one that it may be translated to, is reachable from everywhere."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(part.is_global and not part.is_multicast and not part.is_reserved for part in _meanings(address))


def _private(host: str, address: str) -> FleetError:
    """Rule 3."""
    detail = f"{host} is at {address}, which is not public, and is not listed"
    return ProtocolError("url", detail) if _says_where(host) else TransportError("unreachable", detail)


def _says_where(host: str) -> bool:
    """Whether no name server has a say: an address, however it is spelt, or a name of this device (RFC 6761, 6.3)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        if ":" in host:
            socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        else:
            socket.inet_aton(host)
    except OSError:
        return False
    return True


def _meanings(address: _IPAddress) -> list[_IPAddress]:
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    inner: list[_IPAddress] = [part for part in (address.sixtofour, *(address.teredo or ())) if part is not None]
    return [address, *inner]


def _parse(text: str) -> Url:
    if not _PLAIN.fullmatch(text) or "\\" in text:
        raise ProtocolError("url", f"{shown(text)} is not a plain address")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ProtocolError("url", f"{shown(text)} is not an address") from None
    if parts.scheme not in _PORTS or host is None or "@" in parts.netloc or not _HOST.fullmatch(host):
        raise ProtocolError("url", f"{shown(text)} is not a plain http or https address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    port = _PORTS[parts.scheme] if port is None else port
    return Url(text, parts.scheme, host.lower().rstrip("."), port, path)
