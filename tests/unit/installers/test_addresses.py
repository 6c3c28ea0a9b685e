"""Where a device downloads from, by the rules of device_agent/installers/addresses.py (attack A23)."""

import socket
from typing import Any

import pytest

from device_agent.installers.addresses import AddressPolicy, is_public
from fleet_protocol.errors import ProtocolError, TransportError

ANY = AddressPolicy(("*",))


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/passwd",
        "ftp://example.com/a",
        "gopher://example.com/",
        "data:,x",
        "//example.com/a",
        "example.com/a",
        "",
        "http://",
        "http:///a",
        "http://user@example.com/a",
        "http://user:pass@example.com/a",
        "http://allowed@evil.example/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nHost: evil",
        "http://example.com\\@evil.example/",
        "http://ex\u00e4mple.com/",
        "http://[::1/",
        "http://-a.example/",
        "http://a%00.example/",
        "HTTP\t://example.com",
        "http://example.com/" + "a" * 2_048,
    ],
)
def test_only_plain_http_addresses(text: str) -> None:
    """Rule 1."""
    with pytest.raises(ProtocolError) as caught:
        ANY.check(text)
    assert caught.value.code == "url"


def test_an_address_is_taken_apart_once() -> None:
    url = ANY.check("https://Mirror.Example.com.:8443/a/b?c=d#e")
    assert (url.host, url.port, url.path) == ("mirror.example.com", 8443, "/a/b?c=d")
    assert (url.origin, url.authority) == ("https://mirror.example.com:8443", "mirror.example.com:8443")
    assert ANY.check("http://[2606:4700::1111]").authority == "[2606:4700::1111]"
    assert ANY.check("http://example.com").path == "/"


def test_a_host_must_be_listed() -> None:
    """Rule 2."""
    policy = AddressPolicy(("Mirror.Example", "10.0.0.7"))
    assert policy.check("http://mirror.example/a").host == "mirror.example"
    assert policy.check("http://10.0.0.7:81/a").host == "10.0.0.7"
    for host in ("example", "a.mirror.example", "mirror.example.evil.com", "10.0.0.70"):
        with pytest.raises(ProtocolError):
            policy.check(f"http://{host}/a")


PRIVATE = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "not an address",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "a.localhost",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "127.1",
        "::1",
        "::ffff:10.0.0.1",
        "169.254.169.254",
    ],
)
def test_private_addresses_must_be_named(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 2: `*` does not stand for them, however they are spelt; nor for what every device calls itself."""
    if host == "a.localhost":  # few resolvers know it
        monkeypatch.setattr(socket, "getaddrinfo", _answers("127.0.0.1"))
    with pytest.raises(ProtocolError) as caught:
        ANY.resolve(host, 80)
    assert caught.value.code == "url"


def test_a_named_private_host_is_fine() -> None:
    assert AddressPolicy(("*", "localhost")).resolve("localhost", 80)
    assert AddressPolicy(("[::1]",)).resolve("::1", 80) == ["::1"]


def _answers(*addresses: str) -> Any:
    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]


def test_one_private_answer_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 3: DNS rebinding. The resolver is the one thing that can not be real here."""
    monkeypatch.setattr(socket, "getaddrinfo", _answers("1.1.1.1", "127.0.0.1"))
    with pytest.raises(TransportError):
        ANY.resolve("rebind.example", 80)
    monkeypatch.setattr(socket, "getaddrinfo", _answers("1.1.1.1", "1.1.1.1", "1.0.0.1"))
    assert ANY.resolve("fine.example", 80) == ["1.1.1.1", "1.0.0.1"]


@pytest.mark.parametrize("host", ["mirror.example", "localhost.example", "notlocalhost", "127.example", "dead.beef"])
def test_what_a_captive_portal_says_of_a_name_is_nobodys_attack(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 3: nothing is connected to, and it is tried again when another network is there."""
    monkeypatch.setattr(socket, "getaddrinfo", _answers("192.168.1.1"))
    with pytest.raises(TransportError) as caught:
        ANY.resolve(host, 80)
    assert caught.value.code == "unreachable"
    assert AddressPolicy(("*", host)).resolve(host, 80) == ["192.168.1.1"]


def test_a_name_that_does_not_resolve_is_nobodys_attack() -> None:
    with pytest.raises(TransportError) as caught:
        ANY.resolve("no-such-host.invalid", 80)
    assert caught.value.code == "unreachable"


def test_redirects_are_checked_like_addresses() -> None:
    """Rule 4."""
    policy = AddressPolicy(("mirror.example", "cdn.example"))
    start = policy.check("https://mirror.example/a/b")
    assert policy.follow(start, "../c").text == "https://mirror.example/c"
    assert policy.follow(start, "//cdn.example/x").origin == "https://cdn.example:443"
    for location in (
        "http://mirror.example/",
        "file:///etc/passwd",
        "https://evil.example/",
        "",
        "a b",
        "//x@cdn.example/",
    ):
        with pytest.raises(ProtocolError):
            policy.follow(start, location)
