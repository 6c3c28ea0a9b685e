"""Real brokers for tests: processes of their own on a port that is theirs until the test ends, as they do."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.ports import HOST, reserved_port
from tests.fakes.readiness import start

_END_S = 20.0
_AMQTT = r"""
import asyncio, json, logging, os, socket, sys
from amqtt.broker import Broker

async def main():
    logging.basicConfig(level=logging.WARNING)
    broker = Broker(json.load(open(sys.argv[1])))
    await broker.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.sendto(b"READY=1", "\0" + os.environ["NOTIFY_SOCKET"][1:])
    await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass
class RunningBroker:
    """A broker that a test may kill and start again on the same port."""

    kind: str
    host: str
    port: int
    log: Path
    _argv: list[str]
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The address for `agent.toml` and the server's settings."""
        return f"mqtt://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the broker with a signal (kill -9 unless told) and wait for its end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=_END_S)
            self._process = None

    def restart(self) -> None:
        """Start the broker, again or for the first time, on its port; returns once it takes connections."""
        self.kill()
        self._process = start(self._argv, self.log, lambda: listens(self.host, self.port))


@contextmanager
def mosquitto(directory: Path, *, config: str = "allow_anonymous true") -> Iterator[RunningBroker]:
    """A mosquitto; `config` is put below its listener line. It keeps sessions and retained messages over a kill."""
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(binary).exists():
        pytest.fail("mosquitto is not installed: apt-get install mosquitto")
    home = _directory(directory, "mosquitto")
    store = home / "store"
    store.mkdir(exist_ok=True)

    def argv(port: int) -> list[str]:
        path = home / "mosquitto.conf"
        path.write_text(
            f"user root\npersistence true\npersistence_location {store}/\nautosave_on_changes true\n"
            f"autosave_interval 1\nlog_dest stderr\nlog_type all\nlistener {port} {HOST}\n{config}\n"
        )
        return [binary, "-c", str(path)]

    yield from _running("mosquitto", home, argv)


@contextmanager
def amqtt(directory: Path) -> Iterator[RunningBroker]:
    """The embedded broker's library with everything allowed: MQTT 3.1.1 only, and it forgets all when it ends."""
    home = _directory(directory, "amqtt")

    def argv(port: int) -> list[str]:
        plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        listeners = {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}}
        path = home / "amqtt.json"
        path.write_text(json.dumps({"listeners": listeners, "plugins": plugins}))
        return [sys.executable, "-c", _AMQTT, str(path)]

    yield from _running("amqtt", home, argv)


BROKERS = {"mosquitto": mosquitto, "amqtt": amqtt}
"""Both by name, for tests that run on each."""


def _running(kind: str, home: Path, argv: Callable[[int], list[str]]) -> Iterator[RunningBroker]:
    """On a port that nobody else can get while the broker is away."""
    with reserved_port() as port:
        broker = RunningBroker(kind, HOST, port, home / "log", argv(port))
        broker.restart()
        try:
            yield broker
        finally:
            broker.kill()


def _directory(parent: Path, name: str) -> Path:
    number = 0
    while (parent / f"{name}-{number}").exists():
        number += 1
    home = parent / f"{name}-{number}"
    home.mkdir(parents=True)
    return home


def listens(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
