"""Runs installer operations as the agent does: in worker processes, or in this one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from device_agent.adapters.services import DeviceServices
from device_agent.core.codec import to_json
from device_agent.core.plan import PlannedRelease
from device_agent.core.record import SlotName
from device_agent.installers.crash import ENVIRONMENT
from device_agent.settings import AgentSettings, load
from device_agent.supervisor.supervisor import Supervisor
from device_agent.worker.context import WorkerContext
from fleet_protocol.errors import FleetError, error_of
from tests.fakes.agent_ports import quiet_log

_USUAL: Mapping[str, Mapping[str, Any]] = {
    "stage": {"irreversible": False},
    "activate": {"before": None},
    "revert": {"leaving": None},
}
"""What a test leaves out where it does not matter to it."""


@dataclass
class DeviceUnderTest:
    """One device's state directory and settings, and its operations by name."""

    root: Path
    settings: AgentSettings
    progress: list[float] = field(default_factory=list)
    command: Sequence[str] = (sys.executable, "-m", "device_agent.worker")
    """How a worker is started."""
    kernel: Any = None
    """The fake kernel below its system root, where the test has one."""

    @property
    def state_dir(self) -> Path:
        return self.settings.state_dir

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(self.state_dir)

    @property
    def services(self) -> DeviceServices:
        """As the resident sees them, whoever runs them."""
        return DeviceServices(self.state_dir, self.settings.system_root, quiet_log())

    def slot(self, slot: SlotName, package: str = "app") -> Path:
        return self.state_dir / "slots" / package / slot

    def current(self, package: str = "app") -> str | None:
        link = self.state_dir / "slots" / package / "current"
        return str(link.readlink()) if link.is_symlink() else None

    def run(self, op: str, **args: Any) -> dict[str, Any]:
        """The operation in this process; its errors are raised."""
        context = WorkerContext(settings=self.settings, want=lambda _: None, progress=self.progress.append)
        module = import_module(f"device_agent.installers.ops.{op}")
        result: dict[str, Any] = module.run(json.loads(json.dumps(plain(op, args))), context)
        return result

    def work(self, op: str, *, crash_at: str | None = None, **args: Any) -> dict[str, Any] | None:
        """The operation in a worker process; None where it died, its error raised where it answered with one."""
        environment = dict(os.environ) | ({ENVIRONMENT: crash_at} if crash_at else {})
        request = {"op": op, "args": plain(op, args), "config": str(self.root / "agent.toml")}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(self.command, env=environment, start_new_session=True, **pipes) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answers = (json.loads(line) for line in process.stdout)
            answer = next((line for line in answers if "ok" in line), None)
            os.killpg(process.pid, signal.SIGKILL)  # as the resident does
        if answer is None:
            return None
        if not answer["ok"]:
            raise error_of(answer["code"], answer["detail"])
        result: dict[str, Any] = answer["result"]
        return result

    def refused(self, op: str, **args: Any) -> FleetError:
        """The error that the operation ends with."""
        try:
            self.run(op, **args)
        except FleetError as error:
            return error
        raise AssertionError(f"{op} did not fail")

    def install(self, release: PlannedRelease, slot: SlotName, previous: SlotName | None) -> str:
        """Fetch, stage and activate in this process; returns the tree."""
        self.run("fetch", release=release)
        tree = self.run("stage", release=release, slot=slot, active=previous)["tree"]
        self.run("activate", release=release, slot=slot, previous=previous, tree=tree)
        return str(tree)


def plain(op: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as a worker gets them. Where a test does not name attempts, each has its slot's name."""
    named = {"attempt": args["slot"]} if op in ("activate", "revert") else {}
    return {name: to_json(value) for name, value in {**_USUAL.get(op, {}), **named, **args}.items()}


@contextmanager
def device_under_test(
    root: Path,
    *,
    variables: Mapping[str, str] | None = None,
    service_manager: str = "supervisor",
    system_root: Path | None = None,
    worker_user: str | None = None,
    **download: Any,
) -> Iterator[Any]:
    """A device with nothing installed; whatever its supervisor started is ended with the block."""
    hosts = json.dumps(download.pop("allowed_hosts", ["127.0.0.1"]))
    lines = ['device = "node-1"', 'fleet = "acme"', 'class = "x86_64"', 'state_dir = "state"']
    lines += [f'service_manager = "{service_manager}"']
    lines += [] if system_root is None else [f"system_root = {json.dumps(str(system_root))}"]
    lines += [] if worker_user is None else [f"worker_user = {json.dumps(worker_user)}"]
    lines += ["[download]", f"allowed_hosts = {hosts}", *(f"{name} = {value}" for name, value in download.items())]
    lines += ["[variables]", f'PYTHON = "{sys.executable}"']
    lines += [f"{name} = {json.dumps(value)}" for name, value in (variables or {}).items()]
    (root / "agent.toml").write_text("\n".join(lines) + "\n", "utf-8")
    device = DeviceUnderTest(root, load(root / "agent.toml"))
    try:
        yield device
    finally:
        for name in list(device.supervisor.names()):
            device.supervisor.stop(name, 0.0)
