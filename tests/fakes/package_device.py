"""The installers on a Debian with systemd in a container: worker operations run there, one after the other.

What the device sees of this machine is this project and its libraries, read-only.
"""

import json
import shlex
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_agent.core.codec import to_json
from device_agent.installers.crash import ENVIRONMENT
from device_agent.operations import Operation
from tests.fakes.artifacts import Artifact
from tests.fakes.install_shell import KilledError

PROJECT = Path(__file__).parents[2]
LIBRARIES = Path(sysconfig.get_paths()["platlib"])
BINDS = (PROJECT, LIBRARIES)
_STATE = "/var/lib/fairlead"
_CONFIG = "/etc/fairlead.toml"
_WORKER = """
import os, signal, subprocess, sys
request = open(sys.argv[1], "rb").read()
with subprocess.Popen([sys.executable, "-P", "-m", "device_agent.worker"], start_new_session=True,
                      stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
    worker.stdin.write(request + b"\\n")
    worker.stdin.flush()
    answer = next((line for line in worker.stdout if b'"ok"' in line), b"")
    os.killpg(worker.pid, signal.SIGKILL)
sys.stdout.buffer.write(answer)
"""
"""As the resident does it: whatever the worker leaves running in its group ends with it."""


class _Nobody:
    def names(self) -> tuple[str, ...]:
        return ()


@dataclass
class PackageDevice:
    """`container` is a running one (tests.fakes.nspawn)."""

    container: Any
    kill_op: str | None = None
    kill_at: str | None = None
    """A crash point; or `power`: the operation's container is cut off by somebody else while it runs."""
    killed: int = 0
    running: Operation | None = None
    supervisor: Any = field(default_factory=_Nobody)

    def __post_init__(self) -> None:
        lines = ['device = "node-1"', 'fleet = "acme"', 'class = "x86_64"', f'state_dir = "{_STATE}"']
        self.put("\n".join([*lines, ""]).encode(), _CONFIG)
        self.put(_WORKER.encode(), "/root/worker.py")

    def sh(self, script: str) -> str:
        """The output of a script that must succeed."""
        status, out, err = self.container.run(script)
        assert status == 0, f"{script}\n{out[-2_000:]}{err[-2_000:]}"
        return str(out)

    def put(self, data: bytes, remote: str) -> None:
        """A file of the device. By way of /root: some other places are mounted inside the device only."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            self.container.put(Path(file.name), "/root/put")
        self.sh(f"mkdir -p {Path(remote).parent} && mv /root/put {remote}")

    def cache(self, *artifacts: Artifact) -> None:
        """As if they had been fetched."""
        for artifact in artifacts:
            self.put(artifact.data, f"{_STATE}/cache/{artifact.sha256}")

    def run_op(self, asked: Operation) -> dict[str, object]:
        """For an InstallShell. Only packages are fetched: the cache has the artifacts."""
        args = {name: to_json(value) for name, value in asked.args.items()}
        request = {"op": asked.op, "args": args, "config": _CONFIG}
        if asked.op == "fetch":
            return {"ok": True, "result": {}}
        self.running = asked
        self.put(json.dumps(request).encode(), "/root/request.json")
        killed = asked.op == self.kill_op and not self.killed
        crash = f"{ENVIRONMENT}={self.kill_at} " if killed and self.kill_at else ""
        python = f"PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={PROJECT}:{LIBRARIES} python3 -P"
        _, answer, said = self.container.run(f"cd / && {crash}{python} /root/worker.py /root/request.json")
        if not answer:
            assert killed, said
            self.killed += 1
            raise KilledError
        found: dict[str, object] = json.loads(answer)
        return found

    def packages(self, *names: str) -> Mapping[str, str]:
        """State and version by name."""
        form = shlex.quote("${Package} ${db:Status-Abbrev} ${Version}\\n")
        _, out, _ = self.container.run(f"dpkg-query --show --showformat={form} {' '.join(names)}")
        return {line.split(" ")[0]: line.partition(" ")[2] for line in out.splitlines()}

    @property
    def left_over(self) -> list[str]:
        """What an ended attempt must not leave."""
        found = self.sh(f"cd {_STATE} && find backup cache slots/*/*.debs/*/back -type f 2>/dev/null || true").split()
        return [name for name in found if not name.endswith("mirrors.json")]
