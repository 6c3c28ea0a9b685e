"""The whole server: start and stop, its locks and ports, its broker, and what a kill leaves behind."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker_config.child import EmbeddedBroker
from fleet_protocol import envelope
from fleet_protocol.errors import FleetError, PolicyError
from fleet_protocol.messages import Command, Reply
from fleet_protocol.payload import to_payload
from fleet_protocol.schema import from_payload
from server.adapters.sql.store import SqlStore
from server.app import Server
from server.broker_child import BrokerChild
from server.ports import Work
from server.services.ingest import Ingest
from tests.fakes.brokers import mosquitto
from tests.fakes.mqtt_peer import V5, Peer
from tests.fakes.ports import reserved_port
from tests.fakes.running_server import GROUP, Desk, checked, enrol, running, server_process, settings_for
from tests.fakes.waiting import until

MANIFEST = f"fleet/v1/groups/{GROUP}/manifest"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@dataclass
class Place:
    """Where a broker is."""

    url: str
    host: str
    port: int


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each broker that the product runs on."""
    with ExitStack() as stack:
        started: Any
        if request.param == "mosquitto":
            started = stack.enter_context(mosquitto(tmp_path))
        else:
            started = stack.enter_context(EmbeddedBroker.start())
        yield Place(started.url, started.host, started.port)


@pytest.fixture
def data(tmp_path: Path, desk: Desk) -> Path:
    """A data directory with online keys, one release and its artifact."""
    desk.pack("web", "1.0.0", 1)
    desk.export(tmp_path / "data")
    return tmp_path / "data"


def update(**more: object) -> dict[str, object]:
    base = {"update_type": "files", "package_name": "web", "package_version": "1.0.0", "soak_s": 0}
    return base | more


def test_from_nothing_to_an_open_wave(data: Path, broker: Place) -> None:
    with running(settings_for(data, broker_url=broker.url)) as (_, client), Peer(broker.host, broker.port, "p") as peer:
        until(lambda: client.get("/health").json()["broker"]["connected"])
        enrol(client, "node-1")
        peer.subscribe(MANIFEST)
        job = checked(client.post("/api/updates", json=update(target_nodes=["node-1"])))["job_id"]
        until(lambda: checked(client.get(f"/api/updates/{job}"))["wave"] == 0)
        until(lambda: job.encode() in envelope.decode(peer.next().payload, max_size=300_000).payload)
        assert checked(client.get("/health"))["status"] == "ok"


def test_a_device_answers_over_the_broker(data: Path, broker: Place) -> None:
    with running(settings_for(data, broker_url=broker.url)) as (_, client):
        enrol(client, "node-1")
        until(lambda: client.get("/health").json()["broker"]["connected"])
        with Peer(broker.host, broker.port, "node-1") as device:
            device.subscribe("fleet/v1/devices/node-1/command")

            def answer() -> None:
                signed = envelope.decode(device.next().payload, max_size=9_000)
                command = from_payload(Command, signed.payload, max_size=9_000)
                reply = Reply(id=command.id, code=None, detail="", result={"services": [{"name": "web"}]})
                device.publish("fleet/v1/devices/node-1/reply", to_payload(reply))

            thread = threading.Thread(target=answer)
            thread.start()
            assert checked(client.get("/api/nodes/node-1/services")) == {"services": [{"name": "web"}]}
            thread.join()


@pytest.fixture
def own_port() -> Iterator[int]:
    """A port that no other process gets while nothing listens on it."""
    with reserved_port() as port:
        yield port


def test_the_embedded_broker_comes_back_on_its_port_with_every_document(data: Path, own_port: int) -> None:
    with running(settings_for(data, broker_port=own_port)) as (server, client):
        enrol(client, "node-1")
        assert server.broker is not None
        pid = until(lambda: server.broker and server.broker.pid)
        port = int(server.broker_url.rsplit(":", 1)[1])
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: server.broker and server.broker.pid not in (None, pid))

        def retained() -> bool:
            with Peer("127.0.0.1", port, "p") as peer:
                peer.subscribe(MANIFEST)
                return peer.next().payload != b""

        until(lambda: client.get("/health").json()["broker"]["connected"])
        assert retained()
    assert server.broker.pid is None


def test_an_embedded_broker_that_can_not_be_started_is_tried_again(
    tmp_path: Path, own_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = BrokerChild(host="127.0.0.1", port=own_port, data_dir=tmp_path / "broker")
    child.start()
    start, refusals = EmbeddedBroker.start, [MemoryError("no memory now"), PolicyError("setup", "not yet")]

    def starting(**options: Any) -> EmbeddedBroker:
        if refusals:
            raise refusals.pop(0)
        return start(**options)

    monkeypatch.setattr(EmbeddedBroker, "start", starting)
    try:
        pid = until(lambda: child.pid)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: child.restarts == 1)
        with Peer("127.0.0.1", own_port, "p"):
            assert refusals == []
    finally:
        child.stop()


def test_a_second_server_on_the_same_directory_is_refused(data: Path) -> None:
    with running(settings_for(data, broker_url="mqtt://127.0.0.1:1")), pytest.raises(FleetError) as caught:
        Server(settings_for(data, broker_url="mqtt://127.0.0.1:1")).start()
    assert caught.value.code == "setup"
    assert "another server works in" in caught.value.detail
    with running(settings_for(data, broker_url="mqtt://127.0.0.1:1")):
        pass


def test_a_taken_port_is_one_line_and_leaves_nothing(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "server"],
            env={**os.environ, "FAIRLEAD_DATA_DIR": str(data), "FAIRLEAD_FLEET": "acme", "FAIRLEAD_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1].startswith("fairlead: setup: can not listen on 127.0.0.1:")
    assert "FAIRLEAD_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PORT", "many", "FAIRLEAD_PORT"),
        ("FLEET", "No Fleet", "FAIRLEAD_FLEET"),
        ("BROKER_URL", "http://x", "mqtt://host:port"),
        ("HOST", "0.0.0.0", "FAIRLEAD_PUBLIC_URL"),
        ("DATABASE_URL", "nonsense", "setup"),
        ("DATA_DIR", "/proc/nothing", "can not be used"),
    ],
)
def test_a_setting_that_can_not_be_is_one_line(tmp_path: Path, name: str, value: str, says: str) -> None:
    environment = {"FAIRLEAD_DATA_DIR": str(tmp_path / "data"), "FAIRLEAD_PORT": "0"} | {f"FAIRLEAD_{name}": value}
    ended = subprocess.run(
        [sys.executable, "-m", "server"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert says in ended.stderr.strip().splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_kill_9_of_the_server_loses_nothing(data: Path, desk: Desk, own_port: int) -> None:
    (data / "broker.port").write_text(f"{own_port}\n")  # as the kernel chose it at an earlier start
    with server_process(data, broker_port="0") as process:
        with process.client() as client:
            enrol(client, "node-1")
            job = checked(client.post("/api/updates", json=update(target_nodes=["node-1"])))["job_id"]
            until(lambda: checked(client.get(f"/api/updates/{job}"))["wave"] == 0)
            before = checked(client.get("/api/groups"))["groups"]
        broker_url = process.broker_url
        assert broker_url == f"mqtt://127.0.0.1:{own_port}"
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
        process.start()
        assert process.broker_url == broker_url, "devices find the broker again"
        with process.client() as client:
            until(lambda: client.get("/health").json()["broker"]["connected"])
            assert checked(client.get(f"/api/updates/{job}"))["wave"] == 0
            after = checked(client.get("/api/groups"))["groups"]
            assert after[0]["sequence"] >= before[0]["sequence"]
        assert process.end(signal.SIGTERM) == 0


def test_what_is_committed_at_the_end_is_acknowledged_before_the_link_ends(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow just when the server is told to stop; the broker must not deliver the message again."""
    committing, stopped = threading.Event(), threading.Event()
    begin, stop = SqlStore.begin, Ingest.stop

    def slow(store: SqlStore) -> AbstractContextManager[Work]:
        if threading.current_thread().name == "ingest":
            committing.set()
            stopped.wait()
        return begin(store)

    def stopping(ingest: Ingest) -> None:
        stopped.set()
        stop(ingest)

    monkeypatch.setattr(SqlStore, "begin", slow)
    monkeypatch.setattr(Ingest, "stop", stopping)
    heartbeat = "fleet/v1/devices/node-1/heartbeat"
    with mosquitto(tmp_path) as broker:
        with running(settings_for(data, broker_url=broker.url)) as (_, client):
            enrol(client, "node-1")
            until(lambda: client.get("/health").json()["broker"]["connected"])
            with Peer(broker.host, broker.port, "node-1") as device:
                device.publish("fleet/v1/devices/node-1/health", b'{"time":1,"verdict":"ok","checks":[]}')
            committing.wait()
        with Peer(broker.host, broker.port, "fairlead-server", protocol=V5, clean=False) as session:
            session.publish(heartbeat, b"the first thing that waits")
            assert session.next().topic == heartbeat


def test_the_servers_own_keys_make_a_release(tmp_path: Path) -> None:
    """`signing = server`: keys at the first start, one call to add a release, the same keys at the next start."""
    desk = Desk(tmp_path)
    desk.pack("web", "1.0.0", 1)
    artifact = tmp_path / "web-1.0.0.tar.zst"
    settings = settings_for(tmp_path / "data", signing="server", broker_url="mqtt://127.0.0.1:1")
    with running(settings) as (_, client):
        info = artifact.with_name(artifact.name + ".json").read_text()
        files = {"artifact": artifact.read_bytes()}
        answer = client.post("/api/releases", files=files, data={"info": info})
        assert checked(answer)["releases"] == 1
        assert checked(client.get("/health"))["signing"] == "server"
        wrong = client.post("/api/releases", files={"artifact": b"other bytes"}, data={"info": info})
        assert (wrong.status_code, wrong.json()["code"]) == (400, "bad-request")
        again = client.post("/api/releases", files=files, data={"info": info})
        assert checked(again)["releases"] == 1
    with running(settings) as (_, client):
        assert [release["version"] for release in checked(client.get("/api/releases"))["releases"]] == ["1.0.0"]


def test_no_thread_and_no_secret_is_left(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    with running(settings_for(data)) as (server, client):
        enrol(client, "node-1")
        assert client.get("/api/nodes", headers={"authorization": "Bearer wrong"}).status_code == 401
        token = server.token
    left = {thread for thread in threading.enumerate() if thread not in before and not thread.daemon}
    assert not left
    out = capfd.readouterr()
    assert token not in out.out + out.err
    assert (data / "token").stat().st_mode & 0o077 == 0
