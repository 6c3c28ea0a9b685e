"""The socket that never holds more of one packet than the agent allows, under every fragmentation."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.adapters.bounded_socket import BoundedSocket

MOST = 200


class Wire:
    """Gives what it was given, in pieces."""

    def __init__(self, data: bytes, cuts: list[int]) -> None:
        self._data, self._cuts = data, list(cuts)

    def recv(self, size: int) -> bytes:
        if not self._data:
            raise BlockingIOError
        cut = min(size, self._cuts.pop(0) if self._cuts else size)
        part, self._data = self._data[:cut], self._data[cut:]
        return part

    def send(self, data: bytes) -> int:
        return len(data)

    def close(self) -> None: ...

    def fileno(self) -> int:
        return -1

    def setblocking(self, flag: bool) -> None: ...


class Gone(Wire):
    """A peer that said why by TLS, and hung up before it read."""

    def recv(self, size: int) -> bytes:
        if self._data:
            return super().recv(size)
        error = ssl.SSLError()
        error.reason = "SSLV3_ALERT_CERTIFICATE_REVOKED"
        raise error

    def send(self, data: bytes) -> int:
        raise BrokenPipeError


def _length(value: int) -> bytes:
    out = bytearray()
    while True:
        value, digit = value >> 7, value & 0x7F
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _publish(topic: bytes, payload: bytes, qos: int, version: int) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + (b"\x00\x07" if qos else b"") + (b"\0" if version == 5 else b"")
    body += payload
    return bytes([0x30 | qos << 1]) + _length(len(body)) + body


def _all(sock: BoundedSocket) -> bytes:
    data = b""
    while True:
        try:
            data += sock.recv(7)
        except BlockingIOError:
            return data


@given(
    sizes=st.lists(st.integers(0, 600), max_size=8),
    cuts=st.lists(st.integers(1, 50), max_size=400),
    qos=st.integers(0, 1),
    version=st.sampled_from([4, 5]),
)
def test_small_packets_pass_and_large_ones_lose_their_payload(
    sizes: list[int], cuts: list[int], qos: int, version: int
) -> None:
    sent, expected, dropped = b"", b"", []
    for size in sizes:
        packet = _publish(b"a/b", b"x" * size, qos, version)
        sent += packet
        expected += packet if len(packet) <= MOST else _publish(b"a/b", b"", qos, version)
        dropped += [] if len(packet) <= MOST else [(b"a/b", len(packet))]
    seen: list[tuple[bytes, int]] = []
    sock = BoundedSocket(Wire(sent, cuts), most=MOST, version=version, oversized=lambda t, n: seen.append((t, n)))
    assert _all(sock) == expected
    assert seen == dropped


@given(data=st.binary(max_size=2_000), cuts=st.lists(st.integers(1, 50), max_size=100))
def test_any_bytes_are_bounded(data: bytes, cuts: list[int]) -> None:
    sock = BoundedSocket(Wire(data, cuts), most=MOST, version=5, oversized=lambda topic, size: None)
    try:
        received = _all(sock)
    except ConnectionAbortedError:
        return
    assert len(received) <= len(data) + 1 + data.count(0x30)


@pytest.mark.parametrize(
    "data", [b"\x30\xff\xff\xff\xff\x01", b"\x20\xff\x7f" + b"x" * 300, b"\x32\xff\x7f\xff\xff" + b"x" * 300]
)
def test_what_is_not_mqtt_ends_the_connection(data: bytes) -> None:
    sock = BoundedSocket(Wire(data, []), most=MOST, version=4, oversized=lambda topic, size: None)
    with pytest.raises(ConnectionAbortedError):
        _all(sock)


def test_the_end_is_passed_on() -> None:
    class Ended(Wire):
        def recv(self, size: int) -> bytes:
            return b""

    sock = BoundedSocket(Ended(b"", []), most=MOST, version=4, oversized=lambda topic, size: None)
    assert sock.recv(10) == b""
    assert sock.pending() == 0


def test_what_tls_says_when_it_hangs_up_is_kept() -> None:
    """Otherwise a device with a revoked certificate could only say that something went wrong."""

    class Refusing(Wire):
        def recv(self, size: int) -> bytes:
            error = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
            error.reason = "TLSV1_ALERT_UNKNOWN_CA"
            raise error

    for wire, alert in ((Refusing(b"", []), "TLSV1_ALERT_UNKNOWN_CA"), (Wire(b"", []), "")):
        sock = BoundedSocket(wire, most=MOST, version=5, oversized=lambda *_: None)
        with pytest.raises(OSError):
            sock.recv(1)
        assert sock.alert == alert


def test_what_the_peer_said_before_it_hung_up_is_heard_though_nothing_can_be_sent() -> None:
    sock = BoundedSocket(Gone(b"", []), most=MOST, version=5, oversized=lambda _topic, _size: None)
    with pytest.raises(BrokenPipeError):
        sock.send(b"CONNECT")
    assert sock.alert == "SSLV3_ALERT_CERTIFICATE_REVOKED"


def test_what_arrived_before_a_failed_send_is_not_lost() -> None:
    data = _publish(b"t", b"hello", 0, 5)
    sock = BoundedSocket(Gone(data, []), most=MOST, version=5, oversized=lambda _topic, _size: None)
    with pytest.raises(BrokenPipeError):
        sock.send(b"PINGREQ")
    assert sock.recv(MOST) == data
