"""A whole site on one machine: broker, server, release desk, and devices that a user has set up.

    with device_site(tmp_path) as site:
        site.device("node-1")
        site.add("web", "1.0.0", 1, tree={"run": "..."}, exec=("run",))
        job = site.publish("web", "1.0.0")
        site.ended(job)

The servers are in a network namespace of their own, on a production broker; devices are containers, each with one cable
to it, or virtual machines, set up with deploy/install-agent.sh as its documentation says.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx

from broker_config.site import Site as BrokerSite
from device_agent.enrolment import Enrolment, enroll
from device_agent.host import place
from device_agent.host.wishes import Wishes
from device_agent.settings import load
from firmware_tools import catalogue as editing
from firmware_tools import packing, signing
from firmware_tools.packing import ReleaseSpec
from fleet_protocol.install import HealthCheck
from fleet_protocol.messages import STAGES
from tests.fakes.brokers import listens
from tests.fakes.netns import ADDRESS, Hub
from tests.fakes.ports import reserved_ports
from tests.fakes.readiness import start
from tests.fakes.running_server import FLEET, GROUP, Desk, Json, ServerProcess, checked, server_process
from tests.fakes.waiting import until

PATIENCE_S = 900.0
"""Only bounds a hang; nothing is asserted about time."""
PAUSE_S = 0.1
"""Between two looks at the server, whose answers cost the devices their processors."""
_FINAL = ("complete", "recalled")


class Device(Protocol):
    """What a site needs of a device that runs, container or virtual machine."""

    def do(self, script: str) -> str: ...
    def put(self, local: Path, remote: str) -> None: ...


@dataclass
class DeviceSite:
    """Everything but the devices, and what a test does with it."""

    home: Path
    hub: Hub
    broker: BrokerSite
    desk: Desk
    server: ServerProcess
    client: httpx.Client
    device_class: str

    # Devices

    def install(self, device: Device, name: str, script: str, *, settings: str = "") -> str:
        """Run the `script`, install-agent.sh of a folder of wheels on the device, as docs/device.md tells a user.

        `settings` are added to the agent.toml that the device is given. Returns what was said.
        """
        self.carry(device, name, settings=settings)
        device.put(self.server.data_dir / "enrol-token", "/root/enrol-token")
        enrol = f"--server {self.server.url} --token @/root/enrol-token --group {GROUP}"
        return device.do(f"{script} --settings /root/{name} {enrol}")

    def carry(self, device: Device, name: str, *, settings: str = "") -> None:
        """Copy to the device, into /root/<name>, what `fairlead broker device` makes for it."""
        device.do(f"mkdir -p /root/{name}")
        for path in self._folder(name, settings).iterdir():
            device.put(path, f"/root/{name}/{path.name}")

    def provision(self, root: Path, name: str, *, settings: str = "") -> None:
        """Do the same to a device that is switched off, as a builder of images does: it wakes up in the fleet."""
        where = place.Place(root=root)
        place.install(where, Wishes(settings=self._folder(name, settings)), start=True)
        made = load(where.here(where.config))
        enroll(
            replace(made, state_dir=where.here(made.state_dir), worker_user=None),  # an account of the device only
            Enrolment(self.server.url, f"@{self.server.data_dir / 'enrol-token'}", GROUP, None),
        )

    def _folder(self, name: str, settings: str) -> Path:
        """What `fairlead broker device` makes for it, once."""
        folder = self.home / "devices" / name
        if not folder.exists():
            self.broker.add_device(self.home / "broker", name, self.device_class, folder, request=None)
            with (folder / "agent.toml").open("a") as file:
                file.write(settings)
        return folder

    # Releases

    def add(self, package: str, version: str, counter: int, *, tree: Mapping[str, str | bytes], **spec: Any) -> None:
        """Pack, list, sign and upload a release; a file that begins with #! is executable."""
        folder = self.home / "trees" / f"{package}-{version}"
        for name, content in tree.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else content.encode()
            path.write_bytes(data)
            path.chmod(0o755 if data.startswith(b"#!") else 0o644)
        more = {"kind": "service", "classes": (self.device_class,), **spec}
        out = self.home / f"{package}-{version}.tar.zst"
        packing.pack(folder, out, ReleaseSpec(package=package, version=version, counter=counter, **more), level=1)
        editing.add(self.desk.fleet, out, now_s=time.time())
        signing.sign(self.desk.fleet, sorted(self.desk.fleet.offline.glob("targets-*.pem")), now_s=time.time())
        self.desk.upload(self.client)

    def publish(self, package: str, version: str, *, kind: str = "service", **more: Any) -> str:
        """Publish to everybody at once, or in the waves that `more` names; returns the job's id."""
        body = {
            "update_id": f"{package}-{version}".replace(".", "-"),
            "update_type": kind,
            "package_name": package,
            "package_version": version,
            "group": GROUP,
            "waves": [{"share": 100}],
            "soak_s": 0,
            "failure_limit": 0,
            "probation_s": 1,
            "silence_s": 3_600,
            **more,
        }
        return str(checked(self.client.post("/api/updates", json=body))["job_id"])

    def job(self, job: str) -> Json:
        return checked(self.client.get(f"/api/updates/{job}"))

    def ended(self, job: str) -> Json:
        """The job, once it is decided."""
        until(lambda: self.job(job)["state"] in _FINAL, deadline_s=PATIENCE_S, pause_s=PAUSE_S)
        return self.job(job)

    def node(self, name: str) -> Json:
        return checked(self.client.get(f"/api/nodes/{name}"))

    def installed(self, name: str, package: str) -> str | None:
        """The version that the device last reported."""
        found = [one["version"] for one in self.node(name)["installed"] if one["package"] == package]
        return str(found[0]) if found else None

    def attempted(self, name: str, job: str) -> tuple[str, str | None]:
        """How the device's attempt at the job ended, once the server knows it."""
        attempt = until(lambda: self._attempt(name, job, ended=True), deadline_s=PATIENCE_S, pause_s=PAUSE_S)
        return attempt["outcome"], attempt["code"]

    def reached(self, name: str, job: str, stage: str) -> None:
        """Wait until the device's attempt at the job is at this stage, or beyond it."""
        until(lambda: self._stage(name, job) >= STAGES.index(stage), deadline_s=PATIENCE_S, pause_s=PAUSE_S)

    def _stage(self, name: str, job: str) -> int:
        attempt = self._attempt(name, job, ended=False)
        return STAGES.index(attempt["stage"]) if attempt else -1

    def _attempt(self, name: str, job: str, *, ended: bool) -> Json:
        found = [one for one in self.node(name)["attempts"] if one["deployment"] == job]
        return next((one for one in found if one["outcome"] or not ended), {})

    def online(self, name: str) -> None:
        """Wait until the server sees the device."""
        until(lambda: self.node(name)["available"], deadline_s=PATIENCE_S, pause_s=PAUSE_S)


@contextmanager
def device_site(home: Path, device_class: str) -> Iterator[DeviceSite]:
    """A site without devices; the test's thread is in the hub's network namespace until it ends."""
    with ExitStack() as stack:
        hub = stack.enter_context(Hub())
        stack.enter_context(hub.entered())
        device_port, service_port = stack.enter_context(reserved_ports(2))
        ports = {"device_port": device_port, "service_port": service_port}
        broker = BrokerSite(fleet=FLEET, hosts=(ADDRESS,), user="root", **ports)
        argv = [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", broker.make(home / "broker")]
        process = start(argv, home / "broker.log", lambda: all(listens(ADDRESS, port) for port in ports.values()))
        stack.callback(process.wait)
        stack.callback(process.terminate)
        desk = Desk(home)
        desk.export(home / "server")
        known = {name: str(value) for name, value in broker.server_settings(home / "broker").items()}
        server = stack.enter_context(server_process(home / "server", host=ADDRESS, **known))
        client = stack.enter_context(server.client())
        yield DeviceSite(home, hub, broker, desk, server, client, device_class)


def http_check(path: str = "health") -> HealthCheck:
    """Asks the service at the device's own PORT, every second."""
    return HealthCheck(kind="http", target=f"http://127.0.0.1:${{PORT}}/{path}", interval_s=1, timeout_s=10, failures=3)


def exec_check(program: str = "check") -> HealthCheck:
    """Runs a program of the artifact, every second."""
    return HealthCheck(kind="exec", target=program, interval_s=1, timeout_s=10, failures=2)
