"""The worker port: one suite for the fake and for real processes, then what only processes can do wrong."""

import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from device_agent.adapters.worker_process import WAITING_MOST, WorkerProcess
from device_agent.ports import Worker
from device_agent.worker.operations import OPERATIONS
from fleet_protocol.errors import TransportError
from tests.fakes.agent_ports import FakeWorker
from tests.fakes.trust_device import TrustDevice
from tests.fakes.trust_fleet import Fleet
from tests.fakes.waiting import until

SCRIPTED = """
import os, signal, subprocess, sys, time
from device_agent.worker.pipes import Pipes
pipes = Pipes.of_this_process()
request = pipes.request()
pipes.watch()
exec(request["args"].get("do", ""))
pipes.want(request["op"])
pipes.answer({"ok": True, "result": {"op": request["op"]}})
"""
"""A worker that does what it is told and then waits to be let go."""

Answer = Mapping[str, Any]


class Gate:
    """A retained reader whose documents are there once the test says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._open: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def read(self, topic: str, *, timeout_s: float) -> bytes | None:
        self.asked.append(topic)
        self._event(topic).wait()
        return topic.encode()

    def open(self, topic: str) -> None:
        self._event(topic).set()

    def open_all(self) -> None:
        for topic in self.asked:
            self.open(topic)

    def _event(self, topic: str) -> threading.Event:
        with self._lock:
            return self._open.setdefault(topic, threading.Event())


@dataclass
class World:
    """A worker and the means to let its operations end."""

    worker: Worker
    finish: Callable[[str], None]
    started: Callable[[str], bool]
    answers: list[Answer] = field(default_factory=list)

    def submit(self, op: str) -> None:
        self.worker.submit(op, {}, self.answers.append)

    @property
    def ops(self) -> list[str]:
        return [answer["result"]["op"] for answer in list(self.answers)]


@pytest.fixture(params=["fake", "process"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "fake":
        fake = FakeWorker()
        yield World(fake, lambda op: fake.answer(op, {"op": op}), lambda op: fake.orders[0].op == op)
        return
    gate = Gate()
    worker = WorkerProcess(tmp_path / "agent.toml", gate, command=(sys.executable, "-c", SCRIPTED))
    yield World(worker, gate.open, lambda op: op in gate.asked)
    worker.close()
    gate.open_all()


def test_an_operation_is_answered_once(world: World) -> None:
    world.submit("one")
    until(lambda: world.started("one"))
    assert world.answers == []
    world.finish("one")
    until(lambda: world.answers)
    assert world.ops == ["one"]


def test_operations_are_carried_out_in_their_order(world: World) -> None:
    for op in ("one", "two", "three"):
        world.submit(op)
    for op in ("one", "two", "three"):
        until(lambda op=op: world.started(op))
        world.finish(op)
        until(lambda op=op: op in world.ops)
    assert world.ops == ["one", "two", "three"]


def test_what_is_cancelled_is_never_answered(world: World) -> None:
    world.submit("cancelled")
    until(lambda: world.started("cancelled"))
    world.worker.cancel()
    world.submit("next")
    until(lambda: world.started("next"))
    world.finish("next")
    until(lambda: world.answers)
    assert world.ops == ["next"]


def test_cancelling_nothing_is_no_fault(world: World) -> None:
    world.worker.cancel()
    world.submit("one")
    until(lambda: world.started("one"))
    world.finish("one")
    until(lambda: world.answers)
    assert world.ops == ["one"]


class Lane:
    """A real lane with a scripted worker, for its faults."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.gate = Gate()
        self.progress: list[tuple[str, float]] = []
        command = options.pop("command", (sys.executable, "-c", SCRIPTED))
        self.worker = WorkerProcess(
            tmp_path / "agent.toml",
            options.pop("reader", self.gate),
            progress=lambda op, share: self.progress.append((op, share)),
            command=command,
            **options,
        )
        self.answers: list[Answer] = []

    def run(self, op: str, do: str = "", *, wait: bool = True) -> Answer:
        """The answer of one operation that is let go at once."""
        self.gate.open(op)
        count = len(self.answers)
        self.worker.submit(op, {"do": do}, self.answers.append)
        if not wait:
            return {}
        until(lambda: len(self.answers) > count)
        return self.answers[-1]


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Lane]:
    made = Lane(tmp_path)
    yield made
    made.worker.close()
    made.gate.open_all()


FAULTS = {
    "exit without an answer": "sys.exit(0)",
    "exit with a status": "sys.exit(3)",
    "exception": "sys.stderr = open(os.devnull, 'w'); raise ValueError('bug')",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "os.kill(os.getpid(), signal.SIGABRT)",
    "closed output": "os.close(pipes._outgoing.fileno()); os._exit(0)",
    "no JSON": "os.write(pipes._outgoing.fileno(), b'no json\\n')",
    "not an object": "os.write(pipes._outgoing.fileno(), b'[1]\\n')",
    "a bare string": "os.write(pipes._outgoing.fileno(), b'\"want\"\\n')",
    "no known form": "pipes.answer({'fine': True})",
    "ok without a result": "pipes.answer({'ok': True})",
    "an unknown code": "pipes.answer({'ok': False, 'code': 'no-such-code'})",
    "not utf-8": "os.write(pipes._outgoing.fileno(), b'\\xff\\n')",
    "half a line": "os.write(pipes._outgoing.fileno(), b'{\"ok\": true'); os._exit(0)",
    "progress that is no number": 'os.write(pipes._outgoing.fileno(), b\'{"progress": "much"}\\n\')',
    "progress beyond the end": "pipes.progress(1.5)",
    "wants without end": "while True: pipes.want(request['op'])",
    "a line without end": "os.write(pipes._outgoing.fileno(), b'x' * (9 * 1024 * 1024))",
    "deep nesting": "os.write(pipes._outgoing.fileno(), b'[' * 100000 + b'\\n')",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_worker_that_fails_has_the_code_worker_and_the_next_one_works(lane: Lane, name: str) -> None:
    assert lane.run("bad", FAULTS[name])["code"] == ("no-memory" if name == "killed" else "worker")
    assert lane.run("good") == {"ok": True, "result": {"op": "good"}}


def test_a_worker_that_cannot_be_started(tmp_path: Path) -> None:
    lane = Lane(tmp_path, command=("/no/such/interpreter",))
    assert lane.run("op")["code"] == "worker"
    lane.worker.close()


def test_a_worker_that_falls_silent_is_ended(tmp_path: Path) -> None:
    lane = Lane(tmp_path, silence_s=0.2)
    pid_file = tmp_path / "pid"
    do = f"open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(3600)"
    assert lane.run("silent", do)["code"] == "worker"
    lane.worker.close()
    if pid_file.exists():
        assert not Path(f"/proc/{pid_file.read_text()}").exists()


def test_what_libraries_print_is_no_part_of_the_protocol(lane: Lane) -> None:
    do = (
        "sys.stderr.flush(); os.dup2(os.open(os.devnull, os.O_WRONLY), 1); print('{\"ok\": false}'); sys.stdout.flush()"
    )
    assert lane.run("loud", do)["ok"] is True


def test_progress_is_passed_on(lane: Lane) -> None:
    lane.run("op", "pipes.progress(0.25); pipes.progress(1)")
    assert lane.progress == [("op", 0.25), ("op", 1.0)]


def test_a_sign_of_life_is_no_progress(lane: Lane) -> None:
    assert lane.run("op", "pipes.alive()") == {"ok": True, "result": {"op": "op"}}
    assert lane.progress == []


def test_cancelling_ends_the_whole_process_group(lane: Lane, tmp_path: Path) -> None:
    """Also what the operation has started itself, such as a package manager."""
    pids = tmp_path / "pids"
    do = (
        "child = subprocess.Popen(['sleep', '3600'])\n"
        f"open({str(pids)!r} + '.new', 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(pids)!r} + '.new', {str(pids)!r})\n"
        "child.wait()"
    )
    lane.run("op", do, wait=False)
    until(pids.exists)
    lane.worker.cancel()
    assert lane.run("next")["ok"] is True
    for pid in pids.read_text().split():
        until(lambda pid=pid: gone(int(pid)))
    assert [answer["result"]["op"] for answer in lane.answers] == ["next"]


def test_only_some_operations_are_cancelled(lane: Lane) -> None:
    lane.worker.submit("kept", {}, lane.answers.append)
    lane.worker.submit("dropped", {}, lane.answers.append)
    lane.worker.submit("last", {}, lane.answers.append)
    until(lambda: "kept" in lane.gate.asked)
    assert lane.worker.running == "kept"
    lane.worker.cancel({"dropped"})
    for op in ("kept", "last"):
        lane.gate.open(op)
    until(lambda: len(lane.answers) == 2)
    assert [answer["result"]["op"] for answer in lane.answers] == ["kept", "last"]


def test_more_than_may_wait_is_refused_at_once(lane: Lane) -> None:
    for number in range(WAITING_MOST + 10):
        lane.worker.submit(f"op-{number}", {}, lane.answers.append)
    refused = [answer for answer in list(lane.answers) if not answer["ok"]]
    assert {answer["code"] for answer in refused} == {"busy"}
    assert 9 <= len(refused) <= 10
    lane.worker.cancel()
    assert lane.run("after")["ok"] is True


def test_closing_leaves_no_process(tmp_path: Path) -> None:
    lane = Lane(tmp_path)
    lane.worker.submit("op", {}, lane.answers.append)
    until(lambda: "op" in lane.gate.asked)
    lane.gate.open("op")
    lane.worker.close()
    lane.worker.submit("late", {}, lane.answers.append)
    assert lane.answers[-1]["code"] == "busy"


def test_a_worker_dies_with_its_resident(tmp_path: Path) -> None:
    """kill -9 of the agent leaves nobody behind who goes on writing."""
    process = subprocess.Popen(
        (sys.executable, "-c", SCRIPTED), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    do = "print('up', file=os.fdopen(os.dup(pipes._outgoing.fileno()), 'w'), flush=True); time.sleep(3600)"
    process.stdin.write(json.dumps({"op": "x", "args": {"do": do}, "config": ""}).encode() + b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"up\n"
    process.stdin.close()
    assert process.wait(30) == -signal.SIGKILL
    process.stdout.close()


HOURS_APART = """
import itertools, time
hours = itertools.count(0.0, 3600.0)
time.monotonic = lambda: next(hours)
"""
"""Whenever somebody looks, an hour has gone by."""


@pytest.mark.parametrize(("op", "alive"), [("discard", True), ("refresh", False)])
def test_an_operation_of_many_steps_tells_that_it_lives(tmp_path: Path, op: str, alive: bool) -> None:
    """One that installs: it may lawfully take longer than a worker may be silent. Strangers' documents may not."""
    (tmp_path / "state/cache").mkdir(parents=True)
    (tmp_path / "agent.toml").write_text('device = "d"\nfleet = "f"\nclass = "any"\nstate_dir = "state"\n')
    (tmp_path / "sitecustomize.py").write_text(HOURS_APART)
    request = {"op": op, "args": {"package": "p", "slot": None}, "config": str(tmp_path / "agent.toml")}
    with subprocess.Popen(
        (sys.executable, "-P", "-m", "device_agent.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        start_new_session=True,
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        lines = [json.loads(process.stdout.readline())]
        while "alive" in lines[-1]:
            lines.append(json.loads(process.stdout.readline()))
        assert process.wait(30) == 0
    assert lines[-1]["ok"] is alive
    assert (len(lines) > 1) is alive


LEFT_RUNNING = """
import atexit, os, pathlib, threading
os_dup2 = os.dup2
os.dup2 = lambda *args: (os_dup2(*args), print("said", end=""))
atexit.register(pathlib.Path({mark!r}).touch)
threading.Thread(target=threading.Event().wait).start()
"""
"""A library with something in a buffer, something to do at the end, and a thread without one."""


def test_a_worker_is_gone_with_its_answer(tmp_path: Path) -> None:
    """Whatever its libraries would still do; its input is open, as it is while the resident lives."""
    (tmp_path / "state").mkdir()
    (tmp_path / "agent.toml").write_text('device = "d"\nfleet = "f"\nclass = "any"\nstate_dir = "state"\n')
    (tmp_path / "sitecustomize.py").write_text(LEFT_RUNNING.format(mark=str(tmp_path / "mark")))
    request = {"op": "discard", "args": {"package": "p", "slot": None}, "config": str(tmp_path / "agent.toml")}
    with subprocess.Popen(
        (sys.executable, "-P", "-m", "device_agent.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        start_new_session=True,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"ok": True, "result": {}}
            assert process.wait(30) == 0
        finally:
            process.kill()
        assert process.stderr.read() == b"said"
    assert not (tmp_path / "mark").exists()


class Documents:
    """A retained reader over a fleet's documents; a topic in `failing` raises."""

    def __init__(self, documents: Mapping[str, bytes], failing: Mapping[str, str] | None = None) -> None:
        self._documents, self._failing = documents, failing or {}

    def read(self, topic: str, *, timeout_s: float) -> bytes | None:
        if topic in self._failing:
            raise TransportError(self._failing[topic], topic)
        return self._documents.get(topic)


def agent_toml(fleet: Fleet, state_dir: Path) -> Path:
    path = state_dir.parent / "agent.toml"
    path.write_text(
        f'device = "{fleet.device}"\nfleet = "{fleet.fleet}"\nclass = "{fleet.device_class}"\n'
        f'state_dir = "{state_dir}"\n'
    )
    return path


def test_the_real_worker_on_real_documents(tmp_path: Path) -> None:
    """Every document operation through a process of its own, and a wrong one among them."""
    fleet = Fleet()
    fleet.add_release()
    fleet.publish()
    device = TrustDevice(fleet, tmp_path / "state")
    files = {
        "assignment": fleet.assignment(),
        "manifest": fleet.manifest(fleet.deployment()),
        "command": fleet.command(id="c-1"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    worker = WorkerProcess(agent_toml(fleet, tmp_path / "state"), Documents(fleet.retained()))
    answers: list[Answer] = []
    try:
        worker.submit("assignment", {"path": str(tmp_path / "assignment")}, answers.append)
        worker.submit("manifest", {"path": str(tmp_path / "manifest"), "group": "line-1"}, answers.append)
        worker.submit("manifest", {"path": str(tmp_path / "assignment"), "group": "line-1"}, answers.append)
        worker.submit("command", {"path": str(tmp_path / "command")}, answers.append)
        worker.submit("refresh", {}, answers.append)
        worker.submit("no-such-op", {}, answers.append)
        until(lambda: len(answers) == 6, deadline_s=120)
    finally:
        worker.close()
    assert answers[0]["result"] == {"group": "line-1", "sequence": 1}
    assert answers[1]["result"]["deployments"][0]["refusal"] is None
    assert (answers[2]["ok"], answers[2]["code"]) == (False, "type")
    assert answers[3]["result"]["id"] == "c-1"
    assert answers[4]["result"] == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}
    assert answers[5]["code"] == "worker"
    assert device.floors.manifests["line-1"].sequence == 1


@pytest.mark.parametrize("code", ["timeout", "unreachable"])
def test_the_reader_s_failure_is_the_operation_s(tmp_path: Path, code: str) -> None:
    fleet = Fleet()
    fleet.publish()
    TrustDevice(fleet, tmp_path / "state")
    reader = Documents(fleet.retained(), {"fleet/v1/trust/timestamp": code})
    worker = WorkerProcess(agent_toml(fleet, tmp_path / "state"), reader)
    answers: list[Answer] = []
    try:
        worker.submit("refresh", {}, answers.append)
        until(lambda: answers)
    finally:
        worker.close()
    assert (answers[0]["code"], answers[0]["retry_after_s"]) == (code, None)


def test_a_full_disk_is_an_answer(tmp_path: Path) -> None:
    """Storage errors have codes of their own; they are not deaths."""
    fleet = Fleet()
    fleet.publish()
    TrustDevice(fleet, tmp_path / "state")
    worker = WorkerProcess(agent_toml(fleet, tmp_path / "state"), Documents(fleet.retained()))
    answers: list[Answer] = []
    (tmp_path / "state" / "trust.lock").mkdir()
    try:
        worker.submit("refresh", {}, answers.append)
        until(lambda: answers)
    finally:
        worker.close()
    assert answers[0]["code"] == "io"


def test_every_operation_has_its_module() -> None:
    for name, operation in OPERATIONS.items():
        assert callable(importlib.import_module(operation.module).run), name


def test_a_payload_of_any_size_comes_through(tmp_path: Path) -> None:
    """Five megabytes of targets are the largest document there is."""
    big = os.urandom(5 * 1024 * 1024)

    class Big:
        def read(self, topic: str, *, timeout_s: float) -> bytes | None:
            return big if topic == "big" else b""

    do = "import hashlib; pipes.answer({'ok': True, 'result': {'got': hashlib.sha256(pipes.want('big')).hexdigest()}})"
    lane = Lane(tmp_path, reader=Big())
    assert lane.run("op", do)["result"] == {"got": hashlib.sha256(big).hexdigest()}
    lane.worker.close()


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has, too, only its parent has not looked yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"
