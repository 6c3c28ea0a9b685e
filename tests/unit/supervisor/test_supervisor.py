"""The supervisor by its rules (device_agent/supervisor/supervisor.py), with real processes."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from device_agent.supervisor.process import identify
from device_agent.supervisor.service_log import LINE_MOST, READ_MOST, SIZE_MOST, bound, last_lines
from device_agent.supervisor.spec import ServiceSpec
from device_agent.supervisor.supervisor import Supervisor
from fleet_protocol.errors import InstallError, PolicyError, ProtocolError
from tests.fakes.waiting import until

ROOT = Path(__file__).parents[3]
SLEEP = ("/bin/sleep", "1000")


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    found = Supervisor(tmp_path)
    yield found
    for name in list(found.names()):
        found.stop(name, 0.0)


def spec(*command: str, cwd: Path = ROOT, version: str = "1", stop_s: float = 5.0, **env: str) -> ServiceSpec:
    return ServiceSpec(exec=command or SLEEP, cwd=str(cwd), env=env, version=version, stop_s=stop_s)


def python(code: str, *arguments: str, **how: str) -> ServiceSpec:
    return spec(sys.executable, "-I", "-S", "-u", "-c", code, *arguments, **how)


def test_a_service_runs_as_it_was_told_and_nothing_else(supervisor: Supervisor, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "print(sorted(os.environ.items()), os.getcwd(), sys.argv[1:], os.getsid(0) == os.getpid(), os.umask(0))\n"
        "print(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')), os.read(0, 1))\n"
        "ignored = open('/proc/self/status').read().split('SigIgn:')[1][:17]\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, []), ignored)\n"
        "print('done'); signal.pause()"
    )
    odd = "$(touch x); `id` 'a b' \"c\""
    status = supervisor.start("web", python(code, odd, "", cwd=tmp_path, NAME="value", LANG="C.UTF-8"))  # type: ignore[arg-type]
    lines = until(lambda: (found := supervisor.logs("web", 10)) and found[-1] == "done" and found)
    assert lines[0] == f"[('LANG', 'C.UTF-8'), ('NAME', 'value')] {tmp_path} {[odd, '']} True 18"
    assert lines[1].startswith("['0', '1', '2'] 4 b''")
    assert lines[2].startswith("set() \t")
    assert int(lines[2].split("\t")[1], 16) & (1 << (signal.SIGTERM - 1)) == 0
    assert (status.running, status.wanted, status.restarts, status.version) == (True, True, 0, "1")
    assert status.since_s is not None
    assert status.since_s < 60


def test_one_process_at_most(supervisor: Supervisor) -> None:
    """Rules 1 and 4: the same again is nothing, from any number of threads."""
    found: list[int | None] = []
    threads = [threading.Thread(target=lambda: found.append(supervisor.start("web", spec()).pid)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_another_specification_replaces_the_process(supervisor: Supervisor) -> None:
    first = supervisor.start("web", spec())
    second = supervisor.start("web", spec(version="2"))
    assert first.pid != second.pid
    assert identify(first.pid or 0) is None
    assert (second.version, second.restarts) == ("2", 0)


def test_a_service_survives_whoever_started_it(supervisor: Supervisor, tmp_path: Path) -> None:
    """Rule 2: another process starts it and is killed; this one finds it, and can stop it."""
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from device_agent.supervisor.supervisor import Supervisor\n"
        "from device_agent.supervisor.spec import ServiceSpec\n"
        "spec = ServiceSpec(exec=('/bin/sleep', '1000'), cwd='/', env={}, version='1', stop_s=5)\n"
        "print(Supervisor(Path(sys.argv[1])).start('web', spec).pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, check=False, start_new_session=True
    )
    assert done.returncode == -signal.SIGKILL
    status = supervisor.status("web")
    assert (status.running, status.pid) == (True, int(done.stdout))
    supervisor.stop("web")
    assert identify(int(done.stdout)) is None


def test_another_process_with_the_same_number_is_not_the_service(supervisor: Supervisor, tmp_path: Path) -> None:
    """Rule 2: number, start time and boot together."""
    supervisor.start("web", spec())
    path = tmp_path / "services/web/pid.json"
    value = json.loads(path.read_text())
    stranger = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        for change in ({"pid": stranger.pid}, {"start_ticks": 1}, {"boot": "another"}):
            path.write_text(json.dumps(value | {"process": value["process"] | change}))
            assert not supervisor.status("web").running
        path.write_text(json.dumps(value | {"process": value["process"] | {"pid": stranger.pid}}))
        supervisor.stop("web", 0.0)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        os.kill(value["process"]["pid"], signal.SIGKILL)
        os.waitpid(value["process"]["pid"], 0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": {"pid": "x"}}', '{"process": 7, "generation": 1}'])
def test_a_torn_pid_file_means_that_nothing_runs(supervisor: Supervisor, tmp_path: Path, text: str) -> None:
    supervisor.start("web", spec())
    supervisor.stop("web")
    (tmp_path / "services/web/pid.json").write_text(text)
    assert not supervisor.status("web").running
    assert supervisor.start("web", spec()).running


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"up": true, "generation": 1, "spec": {"exec": 1}}'])
def test_a_torn_wanted_file_is_an_error_that_names_it(supervisor: Supervisor, tmp_path: Path, text: str) -> None:
    supervisor.start("web", spec())
    supervisor.stop("web")
    (tmp_path / "services/web/wanted.json").write_text(text)
    with pytest.raises(InstallError) as caught:
        supervisor.status("web")
    assert caught.value.code == "io"
    assert "wanted.json" in caught.value.detail
    supervisor.stop("web")
    assert supervisor.start("web", spec()).running


def test_stop_asks_first_and_then_kills(supervisor: Supervisor) -> None:
    polite = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit()))\n"
        "print('up'); signal.pause()"
    )
    supervisor.start("polite", python(polite))
    until(lambda: supervisor.logs("polite", 1))
    supervisor.stop("polite")
    assert supervisor.logs("polite", 2) == ("up", "bye")
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(1000)"
    status = supervisor.start("deaf", python(deaf))
    until(lambda: supervisor.logs("deaf", 1))
    supervisor.stop("deaf", 0.05)
    assert identify(status.pid or 0) is None
    supervisor.stop("deaf")
    supervisor.stop("never-there")


def test_stop_ends_the_whole_session(supervisor: Supervisor) -> None:
    """Children that ignore SIGTERM, that have a group of their own, and that outlive their leader."""
    child = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setpgid(0, 0)\n"
        "print(os.getpid()); time.sleep(1000)"
    )
    start = f"subprocess.Popen([sys.executable, '-u', '-c', {child!r}])"
    code = f"import subprocess, sys\n{start}\nprint('leader', flush=True)"
    supervisor.start("family", python(code))
    lines = until(lambda: (found := supervisor.logs("family", 5)) and len(found) == 2 and found)
    pid = int(next(line for line in lines if line != "leader"))
    until(lambda: not supervisor.status("family").running)
    assert identify(pid) is not None
    supervisor.stop("family", 0.0)
    assert identify(pid) is None


def test_no_zombies_while_the_starter_lives(supervisor: Supervisor) -> None:
    for _ in range(3):
        supervisor.start("web", spec())
        supervisor.stop("web")
    with pytest.raises(InstallError):
        supervisor.start("bad", spec("/no/such/program"))
    assert [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize(
    ("command", "cwd", "words"),
    [
        (("/no/such/program",), ROOT, "/no/such/program: No such file or directory"),
        (("/etc/passwd",), ROOT, "/etc/passwd: Permission denied"),
        (("/etc",), ROOT, "/etc: Permission denied"),
        (SLEEP, Path("/no/such/dir"), "/no/such/dir: No such file or directory"),
    ],
)
def test_what_can_not_be_started_says_why(
    supervisor: Supervisor, command: tuple[str, ...], cwd: Path, words: str
) -> None:
    with pytest.raises(InstallError) as caught:
        supervisor.start("web", spec(*command, cwd=cwd))
    assert (caught.value.code, caught.value.detail) == ("start", words)
    assert not supervisor.status("web").running


def test_what_ends_by_itself_is_counted_when_it_is_started_again(supervisor: Supervisor) -> None:
    first = supervisor.start("web", spec())
    assert supervisor.restart("web") is False
    os.kill(first.pid or 0, signal.SIGKILL)
    until(lambda: not supervisor.status("web").running)
    assert (supervisor.status("web").ended, supervisor.status("web").restarts) == (True, 0)
    assert supervisor.restart("web") is True
    status = supervisor.status("web")
    assert (status.running, status.ended, status.restarts) == (True, False, 1)
    assert supervisor.start("web", spec()).restarts == 1
    assert supervisor.start("web", spec(version="2")).restarts == 0


def test_a_device_that_was_off_is_not_counted(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start("web", spec())
    path = tmp_path / "services/web/pid.json"
    value = json.loads(path.read_text())
    os.kill(value["process"]["pid"], signal.SIGKILL)
    os.waitpid(value["process"]["pid"], 0)
    path.write_text(json.dumps(value | {"process": value["process"] | {"boot": "the boot before"}}))
    assert not supervisor.status("web").ended
    assert supervisor.restart("web") is True
    assert supervisor.status("web").restarts == 0


def test_an_orderly_stop_of_all_is_not_counted_and_not_for_ever(supervisor: Supervisor) -> None:
    for name in ("one", "two"):
        supervisor.start(name, spec())
    supervisor.stop_all()
    assert [(status.name, status.running, status.wanted) for status in supervisor.list()] == [
        ("one", False, True),
        ("two", False, True),
    ]
    assert supervisor.restart("one") is True
    assert supervisor.status("one").restarts == 0


def test_a_stopped_service_stays_stopped(supervisor: Supervisor) -> None:
    """Rule 3."""
    supervisor.start("web", spec())
    supervisor.stop("web")
    assert supervisor.restart("web") is False
    assert not supervisor.status("web").running


def test_a_forgotten_service_leaves_its_log(supervisor: Supervisor) -> None:
    supervisor.start("web", python("print('last words')"))
    until(lambda: supervisor.logs("web", 1))
    for _ in range(2):
        supervisor.forget("web")
    assert supervisor.list() == ()
    assert supervisor.logs("web", 5) == ("last words",)
    with pytest.raises(PolicyError) as caught:
        supervisor.status("web")
    assert caught.value.code == "unknown-service"


def test_names_are_checked(supervisor: Supervisor) -> None:
    """Attack B14."""
    for call in (supervisor.status, supervisor.stop, supervisor.forget, lambda name: supervisor.logs(name, 1)):
        with pytest.raises(ProtocolError):
            call("../../etc")
    with pytest.raises(PolicyError):
        supervisor.logs("nobody", 1)


def test_a_busy_service_is_left_to_whoever_acts_on_it(supervisor: Supervisor) -> None:
    """Rule 1."""
    supervisor.start("web", spec())
    with supervisor.directory("web").locked():
        assert supervisor.restart("web") is None


def test_a_restart_waits_for_nobody(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 1: whoever takes the lock in the same instant may hold it for as long as a service takes to stop."""
    supervisor.start("web", spec())
    calls: list[int] = []
    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda lock, how: (calls.append(how), real(lock, how)))
    os.kill(supervisor.status("web").pid or 0, signal.SIGKILL)
    until(lambda: not supervisor.status("web").running)
    assert supervisor.restart("web") is True
    assert calls == [fcntl.LOCK_EX | fcntl.LOCK_NB]


def test_the_specification_survives_json() -> None:
    found = replace(spec(A="b"), exec=("/bin/x", "\u00fc", ""))
    assert ServiceSpec.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_log_is_bounded_and_read_from_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert (bound(log), last_lines(log, 5)) == (0, ())
    log.write_bytes(b"".join(b"line %07d\n" % number for number in range(150_000)))
    assert bound(log) == 0
    assert log.stat().st_size == 0
    assert (tmp_path / "log.1").stat().st_size <= SIZE_MOST
    assert last_lines(log, 2) == ("line 0149998", "line 0149999")
    log.write_bytes(b"new\n")
    assert bound(log) == 4
    assert last_lines(log, 2) == ("line 0149999", "new")
    assert last_lines(log, 0) == ()
    log.write_bytes(b"\xff\x00" + b"x" * 10_000)
    assert last_lines(log, 1) == (("\ufffd\0" + "x" * 10_000)[:LINE_MOST],)
    log.write_bytes(b"y\n" * READ_MOST)
    assert sum(len(line) + 1 for line in last_lines(log, 10**6)) <= READ_MOST


def test_a_service_goes_on_writing_after_a_rotation(supervisor: Supervisor, tmp_path: Path) -> None:
    code = "import time\nprint('x' * 2_000_000)\nwhile True: time.sleep(0.01); print('later')"
    supervisor.start("chatty", python(code))
    log = tmp_path / "services/chatty/log"
    until(lambda: log.exists() and log.stat().st_size > SIZE_MOST)
    bound(log)
    until(lambda: "later" in supervisor.logs("chatty", 1))
    assert log.stat().st_size < SIZE_MOST
