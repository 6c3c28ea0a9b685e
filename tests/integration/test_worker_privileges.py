"""Workers that handle strangers' bytes, under the uid of an account without rights: invariant K5.

Needs root, as the agent does.
"""

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from device_agent.adapters.spool import DocumentSpool
from device_agent.adapters.state_folders import lay_out
from device_agent.adapters.worker_process import WorkerProcess
from device_agent.core.codec import to_json
from device_agent.worker.privileges import ADDRESS_SPACE_BYTES, PROCESSES
from fleet_protocol import topics
from fleet_protocol.dsse import REPORT_TYPE
from tests.fakes.artifacts import packed, planned_release, planned_target
from tests.fakes.http_server import file_server
from tests.fakes.trust_device import TrustDevice
from tests.fakes.trust_fleet import Fleet
from tests.fakes.waiting import until
from tests.fakes.worker_account import NAME, Python, account, environment, reachable_folder, reachable_python

Answer = Mapping[str, Any]


@pytest.fixture(scope="module")
def python() -> Iterator[Python]:
    with reachable_python() as found:
        yield found


@dataclass
class Device:
    """A device whose agent is root: its fleet, its state directory, its settings file, and who reads topics for it."""

    root: Path
    python: Python
    fleet: Fleet
    held: threading.Event = field(default_factory=threading.Event)
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held.set()
        self.fleet.add_release()
        self.fleet.publish()
        TrustDevice(self.fleet, self.state)
        (self.state / "journal").mkdir()
        (self.state / "journal" / "record.json").write_bytes(b"record")
        (self.state / "slots").mkdir()
        lay_out(self.state, account())
        self.key.write_bytes(b"the key of the TLS client")
        self.key.chmod(0o600)
        self.config.write_text(
            f'device = "{self.fleet.device}"\nfleet = "{self.fleet.fleet}"\nclass = "{self.fleet.device_class}"\n'
            f'state_dir = "state"\nworker_user = "{NAME}"\n[download]\nallowed_hosts = ["127.0.0.1"]\n'
        )
        self.config.chmod(0o600)
        command = (*self.python.command, "-P", "-m", "device_agent.worker")
        self.worker = WorkerProcess(self.config, self, command=command, worker_user=True)

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def config(self) -> Path:
        return self.root / "agent.toml"

    @property
    def key(self) -> Path:
        return self.root / "client.key"

    def read(self, topic: str, *, timeout_s: float) -> bytes | None:
        """See device_agent.ports.RetainedReader; waits where the test holds it."""
        assert self.held.wait(60)
        return self.fleet.retained().get(topic)

    def work(self, op: str, **args: Any) -> Answer:
        """The operation's answer."""
        before = len(self.answers)
        self.worker.submit(op, args, self.answers.append)
        until(lambda: len(self.answers) > before, deadline_s=60)
        return self.answers[-1]

    def spooled(self, kind: topics.TopicType, data: bytes) -> str:
        return str(DocumentSpool(self.state / "spool").put(kind, data))

    def script(self, program: str) -> "subprocess.CompletedProcess[str]":
        """A Python program as the worker is started, which has not given up anything yet."""
        argv = [*self.python.command, "-P", "-c", program, str(self.config)]
        return subprocess.run(argv, env=environment(self.python), capture_output=True, text=True, check=False)


@pytest.fixture
def device(python: Python, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    for name, value in python.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SOME_SECRET", "of whoever started the agent")
    with reachable_folder() as root:
        found = Device(root, python, Fleet())
        yield found
        found.held.set()
        found.worker.close()


def running() -> int | None:
    """The process of the operation that runs now, once it is a worker."""
    children = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    found = [int(pid) for pid in children if b"device_agent.worker" in _read(int(pid), "cmdline")]
    return found[0] if found else None


def _read(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


def status(pid: int) -> dict[str, list[str]]:
    lines = _read(pid, "status").decode().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def test_a_worker_that_handles_documents_is_nobody(device: Device) -> None:
    """As the kernel tells it, while the operation waits for a document; every thread of it."""
    user = account()
    device.held.clear()
    device.worker.submit("refresh", {}, device.answers.append)
    pid = until(running)
    assert pid is not None
    until(lambda: status(pid)["Uid"] == [str(user.uid)] * 4 and len(list(Path(f"/proc/{pid}/task").iterdir())) == 2)
    for task in Path(f"/proc/{pid}/task").iterdir():
        rows = status(int(task.name))
        assert rows["Uid"] == [str(user.uid)] * 4
        assert rows["Gid"] == [str(user.gid)] * 4
        assert rows["Groups"] == []
        assert rows["NoNewPrivs"] == ["1"]
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(rows[name][0], 16) == 0
    limits = {line[:25].strip(): line[26:].split() for line in _read(pid, "limits").decode().splitlines()}
    assert limits["Max core file size"][:2] == ["0", "0"]
    assert limits["Max address space"][:2] == [str(ADDRESS_SPACE_BYTES)] * 2
    assert limits["Max processes"][:2] == [str(PROCESSES)] * 2
    assert b"SOME_SECRET" not in _read(pid, "environ")
    assert (Path(f"/proc/{pid}/mem").stat().st_uid, Path("/proc/self/mem").stat().st_uid) == (0, 0)
    device.held.set()
    until(lambda: device.answers)
    assert device.answers[0]["result"]["root"] == 1


def test_a_worker_that_verifies_fetches_and_signs_without_rights(device: Device) -> None:
    fleet, user = device.fleet, account()
    path = device.spooled(topics.ASSIGNMENT, fleet.assignment())
    assert device.work("assignment", path=path)["result"]["group"] == fleet.group
    path = device.spooled(topics.MANIFEST, fleet.manifest(fleet.deployment()))
    plan = device.work("manifest", path=path, group=fleet.group)["result"]
    assert [row["refusal"] for row in plan["deployments"]] == [None]
    path = device.spooled(topics.COMMAND, fleet.command(id="c-1"))
    assert device.work("command", path=path)["result"]["id"] == "c-1"
    assert "envelope" in device.work("sign", payload={"a": 1}, type=REPORT_TYPE)["result"]
    artifact = packed({"file": b"content"})
    with file_server() as server:
        target = planned_target(artifact, kind="files", urls=[server.serve(artifact.data, "/1")])
        release = planned_release(target)
        assert device.work("fetch", release=to_json(release)) == {"ok": True, "result": {}}
    made = [*(device.state / "trust").rglob("*"), device.state / "cache" / artifact.sha256]
    assert {path.stat().st_uid for path in made} == {user.uid}
    assert {path.stat().st_mode & 0o077 for path in made} == {0}
    assert device.work("stage", release=to_json(release), slot="a", active=None, irreversible=False)["ok"]
    assert {path.stat().st_uid for path in (device.state / "slots").rglob("*")} == {0}
    assert (device.state / "slots" / release.package / "a" / "file").read_bytes() == b"content"


REACH = """
import json, os, socket, sys
from pathlib import Path
from device_agent.identity import worker_user
from device_agent.settings import load
from device_agent.worker.privileges import become

settings = load(Path(sys.argv[1]))
state, root = settings.state_dir, settings.state_dir.parent
become(worker_user(settings))
tries = {
    "write slots": lambda: (state / "slots" / "x").write_bytes(b""),
    "look into slots": lambda: os.listdir(state / "slots"),
    "read the journal": lambda: (state / "journal" / "record.json").read_bytes(),
    "write the journal": lambda: (state / "journal" / "record.json").write_bytes(b""),
    "make a folder": lambda: (state / "services").mkdir(),
    "look into the state directory": lambda: os.listdir(state),
    "move its own folder": lambda: (state / "cache").rename(state / "other"),
    "remove the device key": lambda: (state / "device.pem").unlink(),
    "write the spool": lambda: (state / "spool" / "x").write_bytes(b""),
    "read the TLS key": lambda: (root / "client.key").read_bytes(),
    "read the settings": lambda: Path(sys.argv[1]).read_bytes(),
    "be root": lambda: os.setuid(0),
    "be of root's group": lambda: os.setgid(0),
    "have groups": lambda: os.setgroups([0]),
    "see root's processes": lambda: os.readlink("/proc/1/exe"),
    "raise a limit": lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_CORE, (1, 1)),
    "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "write trust": lambda: (state / "trust" / "x").write_bytes(b""),
    "write the cache": lambda: (state / "cache" / "x").write_bytes(b""),
    "read the device key": lambda: (state / "device.pem").read_bytes(),
}
done = []
for name, attempt in tries.items():
    try:
        attempt()
        done.append(name)
    except (OSError, ValueError):
        pass
print(json.dumps(done))
"""


def test_what_a_worker_can_reach(device: Device) -> None:
    done = device.script(REACH)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["write trust", "write the cache", "read the device key"]


KEPT = """
import sys, threading
import ctypes
from pathlib import Path
from device_agent.identity import worker_user
from device_agent.settings import load
from device_agent.worker.privileges import become

{before}
become(worker_user(load(Path(sys.argv[1]))))
print("went on")
"""
BEFORE = {
    "capabilities that outlive the change of the user": ("ctypes.CDLL(None).prctl(8, 1, 0, 0, 0)", "still has CapPrm"),
    "a thread that would keep its rights": (
        "threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "before the first thread",
    ),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_process_that_keeps_anything_does_not_go_on(device: Device, name: str) -> None:
    before, said = BEFORE[name]
    done = device.script(KEPT.format(before=before))
    assert done.returncode != 0
    assert said in done.stderr
    assert "went on" not in done.stdout


@pytest.mark.parametrize("name", ["no-such-user-here", "root"])
def test_an_unfit_user_is_an_answer(device: Device, name: str) -> None:
    """The worker asks again itself: nothing is read from strangers by a process that kept its rights."""
    device.config.write_text(device.config.read_text().replace(f'"{NAME}"', f'"{name}"'))
    answer = device.work("refresh")
    assert (answer["ok"], answer["code"]) == (False, "setup")
    assert name in answer["detail"]
    device.config.write_text(device.config.read_text().replace(f'"{name}"', f'"{NAME}"'))
    assert device.work("refresh")["ok"] is True


ALREADY = """
import sys
from dataclasses import replace
from pathlib import Path
from device_agent.identity import worker_user
from device_agent.settings import load
from device_agent.worker.privileges import become

settings = load(Path(sys.argv[1]))
become(worker_user(settings))
print(worker_user(settings))
worker_user(replace(settings, worker_user="daemon"))
"""


def test_an_agent_that_is_not_root_is_its_own_worker_user_or_nobody_s(device: Device) -> None:
    done = device.script(ALREADY)
    assert done.stdout == "None\n"
    assert "needs an agent that runs as root or as daemon" in done.stderr
