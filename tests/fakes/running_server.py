"""A whole server, in this process or as one of its own, with a release desk beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from securesystemslib.signer import CryptoSigner

from firmware_tools import catalogue as editing
from firmware_tools import ceremony, packing, signing
from firmware_tools.export import export_server
from firmware_tools.fleet import Fleet
from firmware_tools.packing import ReleaseSpec
from server.app import Server
from server.settings import Settings, load

FLEET = "acme"
GROUP = "line-1"
CLASS = "x86_64"
Json = dict[str, Any]


@dataclass
class Desk:
    """The release engineer: one key for each role, so that tests are quick."""

    folder: Path

    def __post_init__(self) -> None:
        self.fleet: Fleet = ceremony.init(self.folder / "desk", fleet=FLEET, now_s=time.time(), threshold=1, keys=1)

    def pack(self, package: str, version: str, counter: int) -> str:
        """Pack, list and sign; the artifact's sha256."""
        tree = self.folder / f"{package}-{version}"
        tree.mkdir()
        (tree / "content").write_text(f"{package} {version}")
        spec = ReleaseSpec(package=package, version=version, counter=counter, kind="files", classes=(CLASS,))
        out = self.folder / f"{package}-{version}.tar.zst"
        sha256 = packing.pack(tree, out, spec, level=1).sha256
        editing.add(self.fleet, out, now_s=time.time())
        signing.sign(self.fleet, sorted(self.fleet.offline.glob("targets-*.pem")), now_s=time.time())
        return sha256

    def export(self, data_dir: Path) -> None:
        """What the server gets before its start."""
        export_server(self.fleet, data_dir)

    def upload(self, client: httpx.Client) -> Json:
        """Artifacts and catalogue over REST."""
        for path in self.fleet.artifacts.iterdir():
            assert client.put(f"/api/artifacts/{path.name}", content=path.read_bytes()).status_code == 201
        targets = self.fleet.targets_bytes()
        assert targets is not None
        roots = [json.loads(root.data) for root in self.fleet.roots()]
        return checked(client.post("/api/catalogue", json={"root": roots, "targets": json.loads(targets)}))


def checked(answer: httpx.Response) -> Json:
    """The body of an answer that must be good."""
    assert answer.is_success, answer.text
    body: Json = answer.json()
    return body


def settings_for(data_dir: Path, **more: Any) -> Settings:
    """Settings for tests: kernel-chosen ports, a quick tick."""
    chosen = {"data_dir": data_dir, "port": 0, "broker_port": 0, "fleet": FLEET, "tick_s": 0.1, "command_timeout_s": 5}
    return load(**chosen | more)


@contextmanager
def running(settings: Settings) -> Iterator[tuple[Server, httpx.Client]]:
    """A server in this process, and a client with its token."""
    server = Server(settings)
    server.start()
    try:
        with client_of(server.url, server.token) as client:
            yield server, client
    finally:
        server.stop()


def client_of(url: str, token: str) -> httpx.Client:
    """A client that sends the token."""
    headers = {"authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False)


def enrol(client: httpx.Client, name: str, *, group: str = GROUP) -> CryptoSigner:
    """Enrol a device over REST; its key."""
    signer = CryptoSigner.generate_ed25519()
    body = {"id": name, "group": group, "class": CLASS, "public_key": signer.public_key.to_dict()}
    checked(client.post("/api/nodes/register", json=body))
    return signer


@dataclass
class ServerProcess:
    """`python -m server` as a process of its own; `start` again after a kill uses the same data."""

    data_dir: Path
    environment: Mapping[str, str]
    process: "subprocess.Popen[str] | None" = None
    url: str = ""
    broker_url: str = ""

    def start(self) -> None:
        """Return once it says that it is ready; AssertionError with its last words where it does not."""
        given = {f"FAIRLEAD_{name.upper()}": value for name, value in self.environment.items()}
        log = (self.data_dir.parent / "server.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server"],
            env={**os.environ, "FAIRLEAD_DATA_DIR": str(self.data_dir), "FAIRLEAD_FLEET": FLEET, **given},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        assert self.process.stdout is not None
        said: dict[str, str] = {}
        while "token" not in said:
            line = self.process.stdout.readline()
            assert line, (self.data_dir.parent / "server.log").read_text()[-3_000:]
            name, _, value = line.strip().partition(" ")
            said[name] = value
        self.url, self.broker_url = said["server"], said["broker"]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status

    def close(self) -> None:
        """End the process, whatever state it is in."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def client(self) -> httpx.Client:
        """A client with the token from the data directory."""
        return client_of(self.url, (self.data_dir / "token").read_text().strip())


@contextmanager
def server_process(data_dir: Path, **environment: str) -> Iterator[ServerProcess]:
    """A started server process that ends with the block."""
    process = ServerProcess(data_dir, {"port": "0", "broker_port": "0", "tick_s": "0.1"} | environment)
    try:
        process.start()
        yield process
    finally:
        process.close()
