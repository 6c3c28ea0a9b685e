"""Rules of server/adapters/mqtt/framing.py, cited by number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.adapters.mqtt.framing import Framer, FramingError, Publish
from tests.fakes.mqtt_peer import packet, text

MOST = 1_000


def publish(topic: str, payload: bytes, *, mid: int = 0, version_5: bool = False, properties: bytes = b"") -> bytes:
    head = 0x32 if mid else 0x30
    body = text(topic) + (mid.to_bytes(2, "big") if mid else b"")
    if version_5:
        body += packet(0, properties)[1:]
    return packet(head, body + payload)


def framed(data: bytes, *, version_5: bool = False, cut: int = 0) -> Framer:
    framer = Framer(version_5=version_5, most=MOST)
    step = cut or len(data) or 1
    for start in range(0, len(data), step):
        framer.feed(data[start : start + step])
    return framer


def test_rule_1_messages_are_decoded_and_the_rest_left_for_paho() -> None:
    puback, pong = packet(0x40, b"\x00\x07"), packet(0xD0, b"")
    framer = framed(publish("a/b", b"x") + puback + publish("c", b"", mid=513) + pong)
    assert list(framer.publishes) == [Publish(b"a/b", 0, b"x"), Publish(b"c", 513, b"")]
    assert bytes(framer.others) == puback + pong


def test_rule_1_quality_of_service_2_is_left_for_paho() -> None:
    message = packet(0x34, text("a") + b"\x00\x01x")
    framer = framed(message)
    assert (list(framer.publishes), bytes(framer.others)) == ([], message)


@pytest.mark.parametrize("properties", [b"", b"\x02\x00\x00\x00\x0a", bytes(200)])
@pytest.mark.parametrize("mid", [0, 9])
def test_rule_1_properties_of_version_5_are_passed_over(properties: bytes, mid: int) -> None:
    framer = framed(publish("a", b"payload", mid=mid, version_5=True, properties=properties), version_5=True)
    assert list(framer.publishes) == [Publish(b"a", mid, b"payload")]


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_rule_2_a_long_message_is_cut_short_and_the_next_one_is_whole(cut: int) -> None:
    framer = framed(publish("a", bytes(5_000), mid=3) + publish("b", b"next", mid=4), cut=cut)
    first, second = framer.publishes
    assert (first.topic, first.mid, len(first.payload)) == (b"a", 3, MOST - 5)
    assert second == Publish(b"b", 4, b"next")


def test_rule_2_no_more_than_that_is_ever_kept() -> None:
    framer = Framer(version_5=False, most=MOST)
    whole = publish("a", bytes(100_000), mid=3)
    for start in range(0, len(whole), 100):
        framer.feed(whole[start : start + 100])
        assert len(framer._begun) <= MOST + 105
    assert len(framer.publishes) == 1


def test_rule_2_another_packet_that_is_too_long_ends_the_connection() -> None:
    with pytest.raises(FramingError):
        framed(packet(0x90, bytes(MOST + 1)))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=300), st.integers(0, 65_535)), max_size=8),
    st.booleans(),
    st.data(),
)
def test_rule_3_the_packets_do_not_depend_on_how_the_bytes_are_cut(
    rows: list[tuple[int, bytes, int]], version_5: bool, data: st.DataObject
) -> None:
    stream = b"".join(
        packet(0x40, mid.to_bytes(2, "big")) if kind == 2 else publish("t", body, mid=mid * kind, version_5=version_5)
        for kind, body, mid in rows
    )
    at_once = framed(stream, version_5=version_5)
    pieces = Framer(version_5=version_5, most=MOST)
    left = stream
    while left:
        size = data.draw(st.integers(1, len(left)))
        pieces.feed(left[:size])
        left = left[size:]
    assert list(pieces.publishes) == list(at_once.publishes)
    assert pieces.others == at_once.others
    assert len(at_once.publishes) == sum(kind != 2 for kind, _, _ in rows)


@pytest.mark.parametrize(
    ("data", "version_5"),
    [
        (b"\x30\xff\xff\xff\xff\xff", False),
        (packet(0x30, b"\x00\x09abc"), False),
        (packet(0x32, b"\x00\x03abc"), False),
        (packet(0x30, b"\x00\x01a"), True),
        (packet(0x30, b"\x00\x01a\x7fb"), True),
    ],
)
def test_what_is_not_mqtt_ends_the_connection(data: bytes, version_5: bool) -> None:
    with pytest.raises(FramingError):
        framed(data, version_5=version_5)
