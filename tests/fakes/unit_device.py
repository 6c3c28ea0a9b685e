"""The installers on a device with a real systemd: worker operations run there, one after the other, killed where asked.

What the device sees of this machine is this project and its libraries, read-only.
"""

import json
import shlex
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_agent.installers.crash import ENVIRONMENT
from device_agent.operations import Operation
from fleet_protocol.errors import FleetError, error_of
from tests.fakes.artifacts import Artifact
from tests.fakes.install_driver import plain
from tests.fakes.install_shell import KilledError

ROOT = Path(__file__).parents[2]
LIBRARIES = Path(sysconfig.get_paths()["platlib"])
BINDS = (ROOT, LIBRARIES)
_PYTHON = f"PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={ROOT}:{LIBRARIES} python3 -P"
_WORKER = """
import json, os, signal, subprocess, sys
request = open(sys.argv[1], "rb").read()
with subprocess.Popen([sys.executable, "-P", "-m", "device_agent.worker"], start_new_session=True,
                      stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
    worker.stdin.write(request + b"\\n")
    worker.stdin.flush()
    answer = next((line for line in worker.stdout if b'"ok"' in line), b"")
    os.killpg(worker.pid, signal.SIGKILL)
sys.stdout.buffer.write(answer)
"""


class NoSupervisor:
    """An InstallShell asks for what it would have to start at boot: systemd has done that."""

    def names(self) -> tuple[str, ...]:
        return ()


@dataclass
class UnitDevice:
    """One agent's state on the device, by a name that no other test uses. `container` is a running one."""

    container: Any
    name: str
    settings: str = ""
    kill: tuple[str, str] | None = None
    killed: int = 0
    running: Operation | None = None
    supervisor: Any = field(default_factory=NoSupervisor)

    def __post_init__(self) -> None:
        self.config, self.state = f"/etc/fairlead-{self.name}.toml", f"/var/lib/fairlead-{self.name}"
        lines = ['device = "node-1"', 'fleet = "acme"', 'class = "x86_64"', f'state_dir = "{self.state}"']
        self._put("\n".join([*lines, self.settings, ""]).encode(), self.config)
        self._put(_WORKER.encode(), "/root/worker.py")

    def sh(self, script: str) -> str:
        """The output of a script that must succeed."""
        status, out, err = self.container.run(script)
        assert status == 0, f"{script}\n{out}{err}"
        return str(out)

    def cache(self, *artifacts: Artifact) -> None:
        """As if they had been fetched."""
        for artifact in artifacts:
            self._put(artifact.data, f"{self.state}/cache/{artifact.sha256}")

    def run(self, op: str, *, crash_at: str | None = None, **args: Any) -> dict[str, Any] | None:
        """The operation in a worker on the device; None where it died, its error raised where it answered with one."""
        request = {"op": op, "args": plain(op, args), "config": self.config}
        self._put(json.dumps(request).encode(), "/root/request.json")
        crash = f"{ENVIRONMENT}={crash_at} " if crash_at else ""
        answer = self.sh(f"cd / && {crash}{_PYTHON} /root/worker.py /root/request.json")
        if not answer:
            return None
        value = json.loads(answer)
        if not value["ok"]:
            raise error_of(value["code"], value["detail"])
        result: dict[str, Any] = value["result"]
        return result

    def refused(self, op: str, **args: Any) -> FleetError:
        """The error that the operation ends with."""
        try:
            self.run(op, **args)
        except FleetError as error:
            return error
        raise AssertionError(f"{op} did not fail")

    def run_op(self, asked: Operation) -> dict[str, object]:
        """For an InstallShell. Fetching is for other tests: the cache has everything."""
        if asked.op == "fetch":
            return {"ok": True, "result": {}}
        self.running = asked
        crash_at = self.kill[1] if self.kill and asked.op == self.kill[0] and not self.killed else None
        try:
            result = self.run(asked.op, crash_at=crash_at, **asked.args)
        except FleetError as error:
            return {"ok": False, "code": error.code, "detail": error.detail}
        if result is None:
            self.killed += 1
            raise KilledError
        return {"ok": True, "result": result}

    def python(self, program: str) -> Any:
        """The JSON that a program prints; it has `services`, as the resident has them."""
        head = (
            "import json, pathlib\nfrom device_agent.adapters.services import DeviceServices\n"
            "from device_agent.log import Log\n"
            f"services = DeviceServices(pathlib.Path({self.state!r}), pathlib.Path('/'), Log())\n"
        )
        return json.loads(self.sh(f"cd / && {_PYTHON} -c {shlex.quote(head + program)}"))

    def show(self, unit: str, *names: str) -> tuple[str, ...]:
        """Properties of a unit of the system."""
        lines = self.sh(f"systemctl show {unit}").splitlines()
        values = dict(line.partition("=")[::2] for line in lines)
        return tuple(values[name] for name in names)

    def write(self, path: str, text: str) -> None:
        """A file of the device, and a daemon-reload."""
        self._put(text.encode(), path)
        self.sh("systemctl daemon-reload")

    def _put(self, data: bytes, remote: str) -> None:
        """By way of /root: some other places are mounted inside the device only."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            self.container.put(Path(file.name), "/root/put")
        self.sh(f"mkdir -p {Path(remote).parent} && cat /root/put >{remote}")
