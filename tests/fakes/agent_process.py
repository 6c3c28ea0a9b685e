"""The agent as a real process, and a client of its broker that plays the server."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.fakes.brokers import RunningBroker
from tests.fakes.trust_fleet import Fleet
from tests.fakes.waiting import until
from tests.fakes.worker_account import Python, environment

_PROGRAM = "import sys; from device_agent.cli import main; sys.exit(main(sys.argv[1:]))"
_QUICK = "[intervals]\nheartbeat_s = 0.5\ntelemetry_s = 0.5\nhealth_s = 0.5\nreconnect_most_s = 0.2\nretry_most_s = 1\n"


class ServerSide:
    """Publishes a fleet's documents and hears everything that its devices say."""

    def __init__(self, broker: RunningBroker, fleet: Fleet) -> None:
        self._fleet = fleet
        self._prefix = fleet.topics.prefix
        self._lock = threading.Lock()
        self._heard: list[tuple[str, bytes]] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="server-side")
        self._client.on_message = self._note
        self._client.on_connect = lambda client, *_: client.subscribe(f"{self._prefix}/devices/#", 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        assert self._subscribed.wait(30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """One message below the full topic, acknowledged."""
        self._client.publish(topic, payload, 1, retain).wait_for_publish(30)

    def flood(self, topic: str, payloads: Iterator[bytes]) -> None:
        """Many messages at QoS 0, as fast as the broker takes them."""
        for payload in payloads:
            self._client.publish(topic, payload, 0).wait_for_publish(30)

    def publish_all(self) -> None:
        """Everything that the fleet's broker ought to retain: trust first."""
        documents = self._fleet.retained()
        for topic in sorted(documents, key=lambda name: "/trust/" not in name):
            self.publish(topic, documents[topic])

    def reconnected(self) -> None:
        """Return once the client is subscribed again after the broker was away."""
        until(self._client.is_connected)
        self._subscribed.clear()
        self._client.subscribe(f"{self._prefix}/devices/#", 1)
        assert self._subscribed.wait(30)

    def heard(self, device: str, kind: str) -> list[bytes]:
        """What the device said under `devices/<device>/<kind>`, in order."""
        wanted = f"{self._prefix}/devices/{device}/{kind}"
        with self._lock:
            return [payload for topic, payload in self._heard if topic == wanted and payload]

    def newest(self, device: str, kind: str) -> Any:
        """The newest JSON of that kind, or an empty object."""
        heard = self.heard(device, kind)
        return json.loads(heard[-1]) if heard else {}

    def reports(self, device: str) -> list[Mapping[str, Any]]:
        """The payloads of all reports, unverified."""
        import base64

        return [json.loads(base64.b64decode(json.loads(data)["payload"])) for data in self.heard(device, "report")]

    def _note(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        with self._lock:
            self._heard.append((message.topic, message.payload))


class AgentProcess:
    """`fairlead-agent` in a directory of its own."""

    def __init__(
        self,
        directory: Path,
        broker_url: str,
        fleet: Fleet,
        *,
        settings: str = "",
        owner: str = "",
        python: Python | None = None,
    ) -> None:
        """`owner` are settings without a section, `settings` those after the sections that every test has."""
        directory.mkdir(parents=True, exist_ok=True)
        self._python = python or Python()
        self.directory, self.state_dir = directory, directory / "state"
        self.config = directory / "agent.toml"
        self.config.write_text(
            f'device = "{fleet.device}"\nfleet = "{fleet.fleet}"\nclass = "{fleet.device_class}"\n'
            'state_dir = "state"\nservice_manager = "supervisor"\nstop_services_on_exit = true\n'
            f'{owner}\n[broker]\nurl = "{broker_url}"\n'
            f'[download]\nallowed_hosts = ["127.0.0.1"]\n[http]\nport = 0\n'
            + (
                settings
                or "[intervals]\nheartbeat_s = 0.5\ntelemetry_s = 0.5\nhealth_s = 0.5\nreconnect_most_s = 0.2\n"
            )
        )
        (directory / "root.json").write_bytes(fleet.first_root)
        self.log = directory / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run one command of the CLI to its end."""
        argv = [*self._argv(arguments[0]), *arguments[1:]]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, env=self._environment(), check=False)

    def init(self) -> Mapping[str, Any]:
        """Lay down the root and make the key; returns the public key."""
        done = self.command("init", "--root", str(self.directory / "root.json"))
        assert done.returncode == 0, done.stderr
        key: Mapping[str, Any] = json.loads(done.stdout)
        return key

    def start(self) -> None:
        """Start the resident."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._argv("run"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment()
            )

    def _argv(self, command: str) -> list[str]:
        return [*self._python.command, "-P", "-c", _PROGRAM, command, "--config", str(self.config)]

    def _environment(self) -> dict[str, str]:
        root = str(Path(__file__).parents[2])
        found = environment(self._python)
        return {**found, "PYTHONPATH": os.pathsep.join(filter(None, (root, found.get("PYTHONPATH"))))}

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End the resident with a signal and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            status = self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(timeout=60)
            pytest.fail(f"the agent did not end:\n{self.log.read_text()[-8_000:]}")
        finally:
            self.process = None
        return status

    def stop_services(self) -> None:
        """End whatever services a killed agent left running."""
        from device_agent.supervisor.supervisor import Supervisor

        Supervisor(self.state_dir).stop_all()


@contextmanager
def running_agent(directory: Path, broker_url: str, fleet: Fleet, **more: Any) -> Iterator[AgentProcess]:
    """An initialised agent that runs, and nothing of it is left afterwards."""
    agent = AgentProcess(directory, broker_url, fleet, **more)
    agent.init()
    agent.start()
    try:
        yield agent
    finally:
        if agent.process is not None:
            agent.kill(signal.SIGTERM)
        agent.stop_services()
