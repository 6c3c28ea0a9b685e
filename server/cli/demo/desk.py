"""The release engineer's desk in the demo: offline keys, packing, signing, all with the real commands."""

import json
import platform
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fleet_protocol.errors import PolicyError
from server.catalogue_upload import upload_catalogue
from server.cli.demo.narrator import Narrator
from server.cli.demo.places import FLEET, PACKAGE, Places, program
from server.client import Client

_COMMAND_S: Final = 60.0


class Desk:
    """Runs `fairlead-firmware` as a release engineer would, and says what it ran."""

    def __init__(self, places: Places, environment: Mapping[str, str], narrator: Narrator) -> None:
        self._places = places
        self._environment = dict(environment)
        self._narrator = narrator
        self.folder = places.release_desk

    def open(self) -> None:
        """Make the fleet's keys and first root: two of three must sign, and the server gets only the online ones."""
        self._run("init", str(self.folder), "--fleet", FLEET, "--no-passphrase")
        self._run("export-server", str(self.folder), "--out", str(self._places.server_data))

    def release(self, tree: Path, *, version: str, counter: int) -> None:
        """Pack a tree, put it into the catalogue and sign that with two offline keys."""
        artifact = self.folder / f"{PACKAGE}-{version}.tar.zst"
        self._run(
            "pack",
            str(tree),
            *("--out", str(artifact), "--package", PACKAGE, "--version", version, "--counter", str(counter)),
            *("--kind", "service", "--class", platform.machine().lower(), "--exec", "${PYTHON} -u web.py"),
            *("--check-http", "http://127.0.0.1:${PORT}/health", "--check-interval", "1", "--check-timeout", "2"),
            *("--check-failures", "3", "--text", f"the demo's web service, {version}"),
        )
        self._run("add", str(self.folder), str(artifact))
        keys = [word for number in (1, 2) for word in ("--key", str(self.folder / f"offline/targets-{number}.pem"))]
        self._run("sign", str(self.folder), *keys, "--yes")

    def upload(self, client: Client) -> None:
        """Hand the signed catalogue and its artifacts to the server."""
        upload_catalogue(client, self.folder)

    def root(self) -> Path:
        """The newest root, which a device is given when it is set up."""
        return max((self.folder / "metadata").glob("*.root.json"), key=lambda path: int(path.name.split(".")[0]))

    def _run(self, *words: str) -> None:
        shown = shlex.join(word.replace(f"{self._places.home}/", "") for word in words)
        self._narrator.say(f"desk    $ fairlead-firmware {shown}")
        run(["fairlead-firmware", *words], self._environment)


def run(words: list[str], environment: Mapping[str, str]) -> str:
    """Run one of our own commands to its end; its output, or PolicyError `setup` with its last line."""
    ended = subprocess.run(  # noqa: S603 - our own programs, no shell
        [program(words[0]), *words[1:]],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
        check=False,
    )
    if ended.returncode != 0:
        said = (ended.stderr or ended.stdout).strip().splitlines() or ["it said nothing"]
        raise PolicyError("setup", f"{words[0]} {words[1]} failed: {said[-1]}")
    return ended.stdout


def agent_config(places: Places, number: int, variables: Mapping[str, str]) -> str:
    """One node's agent.toml."""
    node = places.nodes[number]
    lines = [
        f"device = {json.dumps(node.name)}",
        f"fleet = {json.dumps(FLEET)}",
        f"class = {json.dumps(platform.machine().lower())}",
        f"state_dir = {json.dumps(str(node.folder / 'state'))}",
        'service_manager = "supervisor"',  # a demo touches nothing of the machine that it runs on
        "stop_services_on_exit = true",
        f"[broker]\nurl = {json.dumps(places.broker_url)}",
        '[download]\nallowed_hosts = ["127.0.0.1"]',
        f"[http]\nport = {node.http_port}",
        "[intervals]\nheartbeat_s = 5\ntelemetry_s = 5\nhealth_s = 10\nreconnect_most_s = 3\nretry_most_s = 5",
        "[variables]",
        *(f"{name} = {json.dumps(value)}" for name, value in variables.items()),
    ]
    return "\n".join(lines) + "\n"
