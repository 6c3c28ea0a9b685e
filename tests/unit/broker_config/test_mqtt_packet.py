"""The rules of `broker_config.mqtt_packet`, by their numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config import mqtt_packet
from broker_config.mqtt_packet import PacketType, check_body, read_connect, read_header
from fleet_protocol.errors import ProtocolError
from tests.fakes.mqtt_peer import connect_packet, packet, text

GOOD = {
    "connect": connect_packet(),
    "connect, will, user": packet(
        0x10,
        text("MQTT") + bytes([4, 0xEE]) + b"\0\x3c" + text("a") + text("x/y") + text("gone") + text("u") + text("p"),
    ),
    "publish 0": packet(0x30, text("a/b") + b"hello"),
    "publish 0, retained, empty": packet(0x31, text("a/b")),
    "publish 1": packet(0x32, text("a/b") + b"\0\1" + b"x" * 300),
    "publish 2, again": packet(0x3C, text("a") + b"\xff\xff"),
    "puback": packet(0x40, b"\0\1"),
    "pubrec": packet(0x50, b"\0\1"),
    "pubrel": packet(0x62, b"\0\1"),
    "pubcomp": packet(0x70, b"\0\1"),
    "subscribe": packet(0x82, b"\0\1" + text("a/#") + b"\1" + text("+/b") + b"\0"),
    "unsubscribe": packet(0xA2, b"\0\1" + text("a/#")),
    "pingreq": packet(0xC0, b""),
    "disconnect": packet(0xE0, b""),
}
BAD = {
    "reserved type 0": packet(0x00, b""),
    "reserved type 15": packet(0xF0, b""),
    "connack from a client": packet(0x20, b"\0\0"),
    "suback from a client": packet(0x90, b"\0\1\0"),
    "publish with QoS 3": packet(0x36, text("a") + b"\0\1"),
    "publish at QoS 0, again": packet(0x38, text("a")),
    "publish to a wildcard": packet(0x30, text("a/+")),
    "publish to $SYS": packet(0x30, text("$SYS/broker/version")),
    "publish without a topic": packet(0x30, b"\0\0payload"),
    "publish, topic past the end": packet(0x30, b"\xff\xffa"),
    "publish, topic not UTF-8": packet(0x30, b"\0\2\xc3\x28"),
    "publish, topic with NUL": packet(0x30, b"\0\3a\0b"),
    "publish with packet id 0": packet(0x32, text("a") + b"\0\0"),
    "puback too long": packet(0x40, b"\0\1\0"),
    "puback too short": packet(0x40, b"\0"),
    "pubrel with flags 0": packet(0x60, b"\0\1"),
    "subscribe with flags 0": packet(0x80, b"\0\1" + text("a") + b"\0"),
    "subscribe to nothing": packet(0x82, b"\0\1"),
    "subscribe at QoS 3": packet(0x82, b"\0\1" + text("a") + b"\3"),
    "subscribe to an empty filter": packet(0x82, b"\0\1" + b"\0\0" + b"\0"),
    "unsubscribe from nothing": packet(0xA2, b"\0\1"),
    "pingreq with a body": packet(0xC0, b"x"),
    "disconnect with flags": packet(0xE1, b""),
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "connect, reserved flag": packet(0x10, text("MQTT") + bytes([4, 3]) + b"\0\0" + text("a")),
    "connect, will QoS without a will": packet(0x10, text("MQTT") + bytes([4, 0x0A]) + b"\0\0" + text("a")),
    "connect, password without a user": packet(0x10, text("MQTT") + bytes([4, 0x42]) + b"\0\0" + text("a") + text("p")),
    "connect, kept session without an id": packet(0x10, text("MQTT") + bytes([4, 0]) + b"\0\0" + b"\0\0"),
    "connect, will to a wildcard": packet(
        0x10, text("MQTT") + bytes([4, 6]) + b"\0\0" + text("a") + text("#") + text("m")
    ),
    "connect, bytes after the end": connect_packet()[:1]
    + bytes([connect_packet()[1] + 1])
    + connect_packet()[2:]
    + b"x",
    "connect, another protocol": packet(0x10, text("HTTP") + bytes([4, 2]) + b"\0\0" + text("a")),
}


def check(data: bytes, max_size: int = 10_000) -> PacketType:
    header = read_header(data[: mqtt_packet.HEADER_MOST], max_size=max_size)
    assert header is not None
    body = data[len(data) - header.length :] if header.length else b""
    check_body(header, body)
    return header.kind


@pytest.mark.parametrize("name", GOOD)
def test_a_well_formed_packet_passes(name: str) -> None:
    """P2"""
    assert check(GOOD[name]).value == GOOD[name][0] >> 4


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_packet_is_refused(name: str) -> None:
    """P2"""
    with pytest.raises(ProtocolError) as caught:
        check(BAD[name])
    assert caught.value.code == "parse"


def test_a_long_packet_is_refused_by_its_header() -> None:
    """P1"""
    with pytest.raises(ProtocolError) as caught:
        read_header(b"\x30\xe9\x07", max_size=1_000)
    assert caught.value.code == "size"
    assert read_header(b"\x30\xe8\x07", max_size=1_000) is not None


@pytest.mark.parametrize("cut", range(1, 4))
def test_a_header_that_has_not_ended_asks_for_more(cut: int) -> None:
    assert read_header(b"\x30\xff\xff\xff"[:cut], max_size=1_000) is None


@pytest.mark.parametrize("level", [3, 5])
def test_another_protocol_level_is_told_apart_without_reading_on(level: int) -> None:
    body = text("MQTT") + bytes([level]) + b"whatever follows in another version"
    assert read_connect(body).level == level


def test_the_keep_alive_is_found_where_it_stands() -> None:
    body = connect_packet(keepalive_s=0x1234)[2:]
    connect = read_connect(body)
    assert connect.keepalive_s == 0x1234
    assert body[connect.keepalive_at : connect.keepalive_at + 2] == b"\x12\x34"


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_pass_or_are_refused(data: bytes) -> None:
    """P3"""
    try:
        header = read_header(data[: mqtt_packet.HEADER_MOST], max_size=100)
        if header is not None:
            check_body(header, data[-header.length :] if header.length else b"")
    except ProtocolError:
        pass


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_a_good_packet_cut_short_is_refused(name: str, data: st.DataObject) -> None:
    """P2: no field is read past the end of its packet."""
    whole = GOOD[name]
    header = read_header(whole[: mqtt_packet.HEADER_MOST], max_size=10_000)
    assert header is not None
    if header.kind in (PacketType.PUBLISH, PacketType.PINGREQ, PacketType.DISCONNECT):
        return
    body = whole[len(whole) - header.length :]
    cut = data.draw(st.integers(0, len(body) - 1))
    rest = body[:cut]
    try:
        check_body(header, rest)
    except ProtocolError as error:
        assert error.code == "parse"
    else:
        assert header.kind is PacketType.SUBSCRIBE, "only a list of filters may end early"
