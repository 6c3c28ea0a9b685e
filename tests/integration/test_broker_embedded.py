"""The embedded broker as a process: what the demo asks of it, and what a bad client may not do to it."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from broker_config.bounds import PACKET_MOST, PAYLOAD_MOST
from broker_config.child import EmbeddedBroker
from fleet_protocol.errors import PolicyError
from tests.fakes.mqtt_peer import V5, WAIT_S, Peer, RefusedError, connect_packet, packet, say, text
from tests.fakes.waiting import until

COMMAND = [sys.executable, "-m", "broker_config.embedded"]


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker.start() as running:
        yield running


def peer(broker: EmbeddedBroker, client_id: str, **options: object) -> Peer:
    return Peer(broker.host, broker.port, client_id, **options)


def test_retained_messages_reach_a_later_subscriber_and_an_empty_one_clears(broker: EmbeddedBroker) -> None:
    with peer(broker, "writer") as writer:
        writer.publish("kept/a", b"1", retain=True)
        writer.publish("kept/b", b"2", retain=True)
        writer.publish("kept/a", b"3", retain=True)
        writer.publish("kept/b", b"", retain=True)
    with peer(broker, "reader") as reader:
        assert reader.subscribe("kept/#") == 1
        reader.publish("kept/end", b"")
        assert [(m.topic, m.payload, m.retain) for m in reader.until("kept/end")] == [
            ("kept/a", b"3", True),
            ("kept/end", b"", False),
        ]


def test_a_new_client_is_not_sent_what_others_subscribed_to(broker: EmbeddedBroker) -> None:
    with peer(broker, "one") as one, peer(broker, "two") as two:
        one.publish("private/document", b"x", retain=True)
        one.subscribe("private/#")
        with peer(broker, "three") as three:
            three.subscribe("public/end")
            two.publish("public/end", b"")
            assert [m.topic for m in three.until("public/end")] == ["public/end"]


def test_qos_1_is_kept_for_a_client_that_is_away(broker: EmbeddedBroker) -> None:
    with peer(broker, "away", clean=False) as away:
        away.subscribe("reports/#")
    with peer(broker, "sender") as sender:
        for number in range(1_005):
            sender.publish(f"reports/{number}", b"r")
    with peer(broker, "away", clean=False) as away:
        got = [away.next().topic for _ in range(1_000)]
    assert got == [f"reports/{number}" for number in range(5, 1_005)], "the newest thousand, in order"


def test_a_lost_connection_publishes_the_will_and_an_orderly_end_does_not(broker: EmbeddedBroker) -> None:
    with peer(broker, "watcher") as watcher:
        watcher.subscribe("will/+")
        peer(broker, "orderly", will=("will/orderly", b"offline")).close()
        peer(broker, "lost", will=("will/lost", b"offline")).vanish()
        assert watcher.next().topic == "will/lost"
    with peer(broker, "late") as late:
        late.subscribe("will/+")
        message = late.next()
        assert (message.topic, message.payload, message.retain) == ("will/lost", b"offline", True)


def test_a_disconnect_sent_with_the_connect_is_orderly(broker: EmbeddedBroker) -> None:
    with peer(broker, "watcher") as watcher:
        watcher.subscribe("hasty/#")
        for _ in range(20):
            body = text("MQTT") + bytes([4, 0x06, 0, 0]) + text("hasty") + text("hasty/will") + text("offline")
            say(broker.host, broker.port, packet(0x10, body) + packet(0xE0, b""))
        watcher.publish("hasty/end", b"")
        assert [m.topic for m in watcher.until("hasty/end")] == ["hasty/end"]


def test_a_client_that_falls_silent_is_given_up_after_its_keep_alive(broker: EmbeddedBroker) -> None:
    """G3"""
    with peer(broker, "watcher") as watcher:
        watcher.subscribe("silent/will")
        body = text("MQTT") + bytes([4, 0x06]) + (1).to_bytes(2) + text("mute") + text("silent/will") + text("offline")
        assert say(broker.host, broker.port, packet(0x10, body)) == b"\x20\x02\x00\x00"
        assert watcher.next().payload == b"offline"


def test_a_second_connection_of_one_client_ends_the_first(broker: EmbeddedBroker) -> None:
    with peer(broker, "watcher") as watcher:
        watcher.subscribe("twin/#")
        first = peer(broker, "twin", will=("twin/will", b"offline"))
        with peer(broker, "twin", will=("twin/will", b"offline")) as second:
            assert first.gone.wait(WAIT_S)
            second.publish("twin/hello", b"x")
            assert [m.topic for m in watcher.until("twin/hello")] == ["twin/will", "twin/hello"]
        first.close()


def test_an_mqtt_5_client_is_told_that_it_must_speak_3(broker: EmbeddedBroker) -> None:
    with pytest.raises(RefusedError, match="Unsupported protocol version"):
        peer(broker, "modern", protocol=V5)


@pytest.mark.parametrize("size", [0, 1, 70_000, PAYLOAD_MOST])
def test_payloads_up_to_the_largest_topic_pass(broker: EmbeddedBroker, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    with peer(broker, "large") as large:
        large.subscribe("large/x")
        large.publish("large/x", payload, retain=True)
        assert large.next().payload == payload
        large.publish("large/x", b"", retain=True)


def test_fifty_clients_each_hear_everyone(broker: EmbeddedBroker) -> None:
    """No more: paho selects, which ends at descriptor 1,023, and each client of it has three."""
    with ThreadPoolExecutor(16) as pool:
        peers = list(pool.map(lambda number: peer(broker, f"c{number}"), range(50)))
        try:
            assert set(pool.map(lambda each: each.subscribe("crowd/#"), peers)) == {1}
            list(pool.map(lambda number: peers[number].publish(f"crowd/{number}", b"x", retain=True), range(0, 50, 5)))
            wanted = {f"crowd/{number}" for number in range(0, 50, 5)}
            for each in peers:
                assert {each.next().topic for _ in wanted} == wanted
        finally:
            list(pool.map(lambda each: each.close(), peers))


HOSTILE = {
    "nothing like MQTT": [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
    "TLS": [bytes.fromhex("16030100a5010000a10303")],
    "no CONNECT first": [packet(0x30, text("a") + b"x")],
    "zeros": [b"\0" * 1_000],
    "ones": [b"\xff" * 1_000],
    "too long by its header": [b"\x10\xff\xff\xff\x7f"],
    "too long after CONNECT": [connect_packet(), b"\x30\xff\xff\xff\x7f" + b"x" * 1_000],
    "a byte too long": [connect_packet(), packet(0x30, b"")[:1] + bytes([0x81, 0x88, 0xC0, 0x02])],
    "CONNECT twice": [connect_packet(), connect_packet()],
    "bad topic": [connect_packet(), packet(0x30, b"\0\2\xff\xfe")],
    "field past the end": [connect_packet(), packet(0x82, b"\0\1\xff\xff")],
    "reserved type": [connect_packet(), packet(0xF0, b"")],
    "an acknowledgement of nothing, then rubbish": [connect_packet(), packet(0x40, b"\0\7"), b"\xf0\0"],
    "PUBREL of nothing, then rubbish": [connect_packet(), packet(0x62, b"\0\7"), b"\xf0\0"],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_end_their_own_connection_only(broker: EmbeddedBroker, name: str) -> None:
    """G1"""
    with peer(broker, "bystander") as bystander:
        bystander.subscribe("bystander/x")
        say(broker.host, broker.port, *HOSTILE[name])
        bystander.publish("bystander/x", b"still here")
        assert bystander.next().payload == b"still here"


def test_random_packets_do_not_harm_the_others(broker: EmbeddedBroker) -> None:
    """G1, with bytes from a fixed seed; most begin like packets, so that they get far."""
    luck = random.Random(20_261_123)
    with peer(broker, "bystander") as bystander:
        bystander.subscribe("bystander/x")
        for _ in range(150):
            parts = [connect_packet(f"r{luck.randrange(5)}")] if luck.random() < 0.8 else []
            for _ in range(luck.randrange(1, 5)):
                body = luck.randbytes(luck.randrange(40))
                parts.append(packet(luck.choice([0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x82, 0xA2, 0xC0]), body))
            say(broker.host, broker.port, *parts, b"\xff\xff")
        bystander.publish("bystander/x", b"still here")
        assert bystander.next().payload == b"still here"


def test_connections_leave_no_descriptor_behind(broker: EmbeddedBroker) -> None:
    """G5"""
    process = psutil.Process(broker.process.pid)
    before = until(process.num_fds)
    for _ in range(50):
        say(broker.host, broker.port, connect_packet("leak"), b"\xff\xff")
        say(broker.host, broker.port, b"\xff\xff")
    until(lambda: process.num_fds() <= before)


def test_a_reader_that_does_not_read_does_not_stop_the_others(broker: EmbeddedBroker) -> None:
    """G4: what is queued for it is bounded by cutting it off; meanwhile the others are served."""
    with socket.create_connection((broker.host, broker.port)) as stuck, peer(broker, "quick") as quick:
        stuck.sendall(connect_packet("stuck") + packet(0x82, b"\0\1" + text("heavy/#") + b"\0"))
        quick.subscribe("heavy/#")
        for number in range(10):
            quick.publish(f"heavy/{number}", b"x" * 1_000_000)
            assert len(quick.next().payload) == 1_000_000


def test_no_port_twice_and_one_line_that_says_so(broker: EmbeddedBroker) -> None:
    run = subprocess.run([*COMMAND, "--port", str(broker.port)], check=False, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.startswith("embedded broker: ")
    assert run.stderr.count("\n") == 1
    with pytest.raises(PolicyError):
        EmbeddedBroker.start(port=broker.port)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "broker.example", ""])
def test_it_refuses_to_listen_beyond_loopback(host: str) -> None:
    run = subprocess.run([*COMMAND, "--host", host], check=False, capture_output=True, text=True)
    assert run.returncode == 1
    assert "loopback only" in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_with_clients_connected(number: signal.Signals) -> None:
    process = subprocess.Popen([*COMMAND, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())
    connected = Peer(address["host"], address["port"], "a", will=("a/b", b"offline"))
    connected.subscribe("a/#")
    silent = socket.create_connection((address["host"], address["port"]))
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert connected.gone.wait(WAIT_S)
    connected.close()
    silent.close()


def test_it_ends_with_the_process_that_started_it() -> None:
    starter = (
        "import sys; from broker_config.child import EmbeddedBroker; "
        "b = EmbeddedBroker.start(); print(b.process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_retained_messages_outlive_kill_9_where_it_has_a_directory(tmp_path: Path) -> None:
    first = EmbeddedBroker.start(data_dir=tmp_path / "broker")
    with Peer(first.host, first.port, "writer") as writer:
        writer.publish("kept/a", b"1", retain=True)
        writer.publish("kept/gone", b"1", retain=True)
        writer.publish("kept/gone", b"", retain=True)
        writer.subscribe("passing")
        writer.publish("passing", b"1")
        writer.next()
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        assert writer.gone.wait(WAIT_S)
    second = EmbeddedBroker.start(port=first.port, data_dir=tmp_path / "broker")
    with second, Peer(second.host, second.port, "reader") as reader:
        reader.subscribe("#")
        reader.publish("end", b"")
        assert [(m.topic, m.payload) for m in reader.until("end")] == [("kept/a", b"1"), ("end", b"")]


def test_it_says_when_its_directory_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = subprocess.run(
        [*COMMAND, "--port", "0", "--data", str(tmp_path / "file")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stderr.count("\n")) == (1, 1)
    assert "cannot keep retained messages" in run.stderr


def test_a_full_house_turns_new_clients_away_and_serves_the_old() -> None:
    few_files = ["prlimit", "--nofile=80:80", *COMMAND, "--port", "0"]
    process = subprocess.Popen(few_files, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        with process.stdout:
            address = json.loads(process.stdout.readline())
        with Peer(address["host"], address["port"], "old") as old:
            old.subscribe("x")
            crowd = [socket.create_connection((address["host"], address["port"])) for _ in range(60)]
            old.publish("x", b"served")
            assert old.next().payload == b"served"
            for sock in crowd:
                sock.close()
    finally:
        process.terminate()
        process.wait()


def test_the_bound_of_a_packet_leaves_room_for_its_topic() -> None:
    assert PAYLOAD_MOST + len("fleet/v1/trust/targets/999999999") + 4 < PACKET_MOST
