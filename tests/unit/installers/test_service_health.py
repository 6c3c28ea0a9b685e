"""Health checks of real releases: device_agent/installers/health.py, service.py and substitution.py (attack B16)."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_agent.installers.health import run_check
from device_agent.installers.port import Verdict
from device_agent.installers.substitution import substitute
from fleet_protocol.errors import InstallError
from fleet_protocol.install import HealthCheck
from tests.fakes.artifacts import packed, planned_release, planned_target, put_in_cache
from tests.fakes.http_server import Served, file_server
from tests.fakes.install_driver import device_under_test
from tests.fakes.ports import reserved_port
from tests.fakes.waiting import until


def http(target: str, timeout_s: int = 5) -> HealthCheck:
    return HealthCheck(kind="http", target=target, interval_s=1, timeout_s=timeout_s, failures=1)


def program(target: str = "check", timeout_s: int = 5) -> HealthCheck:
    return HealthCheck(kind="exec", target=target, interval_s=1, timeout_s=timeout_s, failures=1)


def ask(check: HealthCheck, slot: Path = Path("/"), **variables: str) -> Verdict:
    return run_check(check, slot, {"PATH": "/usr/bin:/bin", **variables}, variables)


@pytest.mark.parametrize(
    ("status", "well"), [(200, True), (204, True), (299, True), (302, False), (404, False), (500, False)]
)
def test_http_is_well_with_a_success(status: int, well: bool) -> None:
    with file_server() as server:
        server.paths["/health?a=b"] = Served(b"" if status == 204 else b"ok", status=status)
        verdict = ask(http("http://127.0.0.1:${PORT}/health?a=b"), PORT=str(server.port))
    assert (verdict.code is None) == well
    assert well or f"answers {status}" in verdict.detail


@pytest.mark.parametrize(
    "target",
    [
        "http://10.0.0.1/",
        "http://example.com/",
        "https://127.0.0.1/",
        "file:///etc/passwd",
        "http://127.0.0.1.evil.example/",
        "http://user@10.0.0.1#@127.0.0.1/",
        "http://[::1/",
        "http://127.0.0.1:99999/",
        "nonsense",
    ],
)
def test_http_asks_this_device_only(target: str) -> None:
    assert ask(http(target)).code == "unhealthy"


def test_http_where_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        verdict = ask(http(f"http://127.0.0.1:{closed.getsockname()[1]}/"))
    assert verdict.code == "unhealthy"


@contextmanager
def answering(data: bytes, *, drip_s: float | None = None) -> Iterator[int]:
    """A port that answers anything with these bytes, or drips them for ever."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                try:
                    peer.recv(4_096)
                    while drip_s is not None and not ended.wait(drip_s):
                        peer.sendall(data)
                    if drip_s is None:
                        peer.sendall(data)
                        ended.wait()
                except ConnectionError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize(
    ("data", "drip_s"),
    [(b"", None), (b"HTTP/1.1 200 OK\r\n", None), (b"garbage\r\n\r\n", None), (b"X", 0.02), (b"X-A: b\r\n", 0.02)],
)
def test_http_that_hangs_drips_or_babbles_is_not_well(data: bytes, drip_s: float | None) -> None:
    """Attack B16: never longer than the timeout."""
    with answering(data, drip_s=drip_s) as port:
        assert ask(http(f"http://127.0.0.1:{port}/", timeout_s=1)).code == "unhealthy"


def script(root: Path, text: str) -> Path:
    path = root / "check"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return root


def test_a_program_is_well_with_status_0(tmp_path: Path) -> None:
    assert ask(program(), script(tmp_path, '[ "$(pwd)" = "$WHERE" ]'), WHERE=str(tmp_path)).code is None


def test_a_program_says_why_not(tmp_path: Path) -> None:
    verdict = ask(program(), script(tmp_path, "echo starting; echo 'no database' >&2; exit 3"))
    assert verdict.code == "unhealthy"
    assert "status 3" in verdict.detail
    assert "no database" in verdict.detail


def test_a_program_that_is_killed_is_not_well(tmp_path: Path) -> None:
    assert ask(program(), script(tmp_path, "kill -9 $$")).code == "unhealthy"


def test_a_program_that_hangs_is_killed_with_all_its_children(tmp_path: Path) -> None:
    """Attack B16."""
    verdict = ask(program(timeout_s=1), script(tmp_path, "sleep 1000 & echo $! > child; wait"))
    assert "does not end" in verdict.detail
    child = int((tmp_path / "child").read_text())
    until(lambda: not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text())


def test_what_a_program_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    assert ask(program(timeout_s=300), script(tmp_path, "sleep 1000 & exit 0")).code is None


def test_what_a_program_prints_is_bounded(tmp_path: Path) -> None:
    verdict = ask(program(timeout_s=60), script(tmp_path, "head -c 20000000 /dev/zero; echo end; exit 1"))
    assert len(verdict.detail) <= 300
    assert "end" in verdict.detail


@pytest.mark.parametrize("target", ["../check", "/bin/true", "", "no-such", "a/../check", "check\n"])
def test_a_program_is_inside_the_release(tmp_path: Path, target: str) -> None:
    (tmp_path / "slot").mkdir()
    script(tmp_path, "exit 0")
    assert ask(program(target), tmp_path / "slot").code == "unhealthy"


def test_variables_are_filled_in_once() -> None:
    assert substitute("a ${A} ${B}${A}", {"A": "${B}", "B": "b"}) == "a ${B} b${B}"
    assert substitute("$A {A} $ {", {}) == "$A {A} $ {"
    for text in ("${C}", "${", "${A", "${}", "${A B}"):
        with pytest.raises(InstallError) as caught:
            substitute(text, {"A": "x", "B": "y"})
        assert caught.value.code == "start"


WEB = b"""
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(open("version", "rb").read())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as reserved:
        yield reserved


def test_a_web_service_is_well_until_it_crashes(tmp_path: Path, port: int) -> None:
    artifact = packed({"web.py": WEB, "version": b"1"})
    wanted = planned_release(
        planned_target(
            artifact,
            kind="service",
            run=("${PYTHON}", "-I", "web.py", "${PORT}"),
            check=http("http://127.0.0.1:${PORT}/", 2),
        )
    )
    with device_under_test(tmp_path, variables={"PORT": str(port)}) as device:
        put_in_cache(device.state_dir, artifact)
        tree = device.run("stage", release=wanted, slot="a", active=None)["tree"]
        device.run("activate", release=wanted, slot="a", previous=None, tree=tree)
        until(lambda: device.run("check", release=wanted, slot="a")["code"] is None)
        device.run("activate", release=wanted, slot="a", previous=None, tree=tree)
        pid = device.supervisor.status("app").pid
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"FAIRLEAD_VERSION=1.0.0" in environment
        assert b"PORT=%d" % port in environment
        assert not any(item.startswith((b"USER=", b"VIRTUAL_ENV=", b"PYTEST")) for item in environment)
        os.kill(pid, signal.SIGKILL)
        until(lambda: device.run("check", release=wanted, slot="a")["code"] == "crashed")
        device.supervisor.restart("app")
        found = device.run("check", release=wanted, slot="a")
        assert found["code"] == "crashed"
        assert "ended by itself 1 times" in found["detail"]


def test_a_device_that_was_off_is_not_the_releases_fault(tmp_path: Path) -> None:
    artifact = packed({"run": b"#!/bin/sh\nexec sleep 1000\n"}, {"run": 0o755})
    wanted = planned_release(planned_target(artifact, kind="service", run=("run",)))
    with device_under_test(tmp_path) as device:
        put_in_cache(device.state_dir, artifact)
        tree = device.run("stage", release=wanted, slot="a", active=None)["tree"]
        device.run("activate", release=wanted, slot="a", previous=None, tree=tree)
        device.supervisor.stop_all()
        assert device.run("check", release=wanted, slot="a")["code"] is None
        assert device.supervisor.status("app").running
        device.supervisor.stop("app")
        assert device.run("check", release=wanted, slot="a")["code"] == "crashed"


def test_a_service_keeps_its_data_outside_its_slot(tmp_path: Path) -> None:
    code = b"#!/bin/sh\necho $STATE_DIRECTORY > $STATE_DIRECTORY/mine; import_me=1; exec sleep 1000\n"
    artifact = packed({"run": code}, {"run": 0o755})
    wanted = planned_release(planned_target(artifact, kind="service", run=("run",)))
    with device_under_test(tmp_path) as device:
        put_in_cache(device.state_dir, artifact)
        tree = device.run("stage", release=wanted, slot="a", active=None)["tree"]
        device.run("activate", release=wanted, slot="a", previous=None, tree=tree)
        mine = device.state_dir / "services/app/data/mine"
        assert until(lambda: mine.exists() and mine.read_text()).strip() == str(mine.parent)


def test_python_writes_no_bytecode_into_the_slot(tmp_path: Path) -> None:
    """Otherwise the slot could not be gone back to."""
    files = {
        "main.py": b"import sys\nsys.path[0:0] = ['.']\nimport part, time\nprint('up', flush=True)\ntime.sleep(1000)\n"
    }
    artifact = packed({**files, "part.py": b"x = 1\n"})
    wanted = planned_release(planned_target(artifact, kind="service", run=("${PYTHON}", "main.py")))
    with device_under_test(tmp_path) as device:
        put_in_cache(device.state_dir, artifact)
        tree = device.run("stage", release=wanted, slot="a", active=None)["tree"]
        device.run("activate", release=wanted, slot="a", previous=None, tree=tree)
        until(lambda: device.supervisor.logs("app", 1) == ("up",))
        assert sorted(path.name for path in device.slot("a").iterdir()) == ["main.py", "part.py"]
        device.run("activate", release=wanted, slot="a", previous=None, tree=tree)
