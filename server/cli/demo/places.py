"""Where everything of one demo is: folders, ports, programs."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet_protocol.topics import DEFAULT_PREFIX
from server.tokens import API

NODES: Final = ("node-1", "node-2", "node-3")
GROUP: Final = "demo"
FLEET: Final = "demo"
PACKAGE: Final = "hello-web"
_HOST: Final = "127.0.0.1"
_BROKER_PORT: Final = 1883
_SERVER_PORT: Final = 8080
_NODE_PORTS: Final = (8081, 8082, 8083)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """One demo device."""

    name: str
    folder: Path
    http_port: int
    service_port: int

    @property
    def config(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def http_url(self) -> str:
        return f"http://{_HOST}:{self.http_port}"

    @property
    def service_url(self) -> str:
        return f"http://{_HOST}:{self.service_port}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The demo's own map."""

    home: Path
    broker_port: int
    server_port: int
    nodes: tuple[NodePlace, ...]

    @property
    def broker_url(self) -> str:
        return f"mqtt://{_HOST}:{self.broker_port}"

    @property
    def server_url(self) -> str:
        return f"http://{_HOST}:{self.server_port}"

    @property
    def moved(self) -> list[tuple[str, int, str]]:
        """Who could not have its default port: its name, that port, and where it is instead."""
        usual = [("broker", _BROKER_PORT, self.broker_port, self.broker_url)]
        usual.append(("server", _SERVER_PORT, self.server_port, self.server_url))
        usual += [(n.name, port, n.http_port, n.http_url) for n, port in zip(self.nodes, _NODE_PORTS, strict=True)]
        return [(name, default, url) for name, default, port, url in usual if port != default]

    @property
    def ready_lines(self) -> dict[str, str]:
        """Commands to be copied whole, each by its program's name: what to tell a shell, and how to listen in."""
        listen = f"-h {_HOST} -p {self.broker_port} -v -t '{DEFAULT_PREFIX}/#'"
        token = (self.server_data / API).read_text(encoding="ascii").strip()
        return {"export": f"FAIRLEAD_SERVER={self.server_url} FAIRLEAD_TOKEN={token}", "mosquitto_sub": listen}

    @property
    def release_desk(self) -> Path:
        """The release engineer's folder: offline keys and the catalogue."""
        return self.home / "release-desk"

    @property
    def server_data(self) -> Path:
        return self.home / "server"

    @property
    def logs(self) -> Path:
        return self.home / "logs"


def program(name: str) -> str:
    """The console script of this installation; beside the interpreter that runs us."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def chosen(home: Path) -> Iterator[Places]:
    """Default ports where they are free, ports of the kernel's choice where they are not.

    They are kept for as long as the block lasts, so that what is killed finds its port again: by sockets that never
    listen and share their address with whoever asks for it by its number.
    """
    with ExitStack() as claims:
        ports = [_claim(port, claims) for port in (_BROKER_PORT, _SERVER_PORT, *_NODE_PORTS, 0, 0, 0)]
        nodes = tuple(
            NodePlace(name=name, folder=home / name, http_port=ports[2 + n], service_port=ports[5 + n])
            for n, name in enumerate(NODES)
        )
        yield Places(home=home, broker_port=ports[0], server_port=ports[1], nodes=nodes)


def _claim(port: int, claims: ExitStack) -> int:
    sock = claims.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if port:  # another demo could bind it as well, as long as nobody listens; of its name there is one on a machine
            claims.enter_context(socket.socket(socket.AF_UNIX)).bind(f"\0fairlead-demo-{port}")
        sock.bind((_HOST, port))
    except OSError:
        sock.bind((_HOST, 0))
    return int(sock.getsockname()[1])
