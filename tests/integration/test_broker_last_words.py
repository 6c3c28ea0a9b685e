"""A client that publishes at QoS 0 and leaves at once, as `mosquitto_pub` does, is heard."""

import socket

import pytest

from broker_config.child import EmbeddedBroker

CONNECT = bytes.fromhex("100c00044d5154540402003c0000")
CONNACK = bytes.fromhex("20020000")
DISCONNECT = bytes.fromhex("e000")


def publish(topic: str, payload: bytes) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic.encode() + payload
    return bytes([0x31, len(body)]) + body


def subscribe(topic: str) -> bytes:
    body = b"\0\1" + len(topic).to_bytes(2, "big") + topic.encode() + b"\0"
    return bytes([0x82, len(body)]) + body


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = sock.recv(size - len(data))
        assert block, "the broker ended the connection"
        data += block
    return data


@pytest.mark.parametrize("messages", [1, 5])
def test_what_was_published_just_before_the_end_is_delivered(messages):
    with EmbeddedBroker.start() as broker, socket.create_connection((broker.host, broker.port), timeout=30) as listener:
        listener.sendall(CONNECT + subscribe("a/+"))
        assert exactly(listener, 9) == CONNACK + bytes.fromhex("9003000100")
        for attempt in range(20):
            said = [publish(f"a/{attempt}", b"%d" % number) for number in range(messages)]
            with socket.create_connection((broker.host, broker.port), timeout=30) as speaker:
                speaker.sendall(CONNECT + b"".join(said) + DISCONNECT)
                assert exactly(speaker, 4) == CONNACK
            for packet in said:
                heard = exactly(listener, len(packet))
                assert heard[1:] == packet[1:]
