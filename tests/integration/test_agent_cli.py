"""The command line of the agent: init, enroll, status and doctor, and one line for every mistake."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from device_agent.cli import main
from tests.fakes.agent_process import AgentProcess
from tests.fakes.ports import reserved_port
from tests.fakes.trust_fleet import Fleet


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet()
    fleet.publish()
    return fleet


@pytest.fixture
def agent(tmp_path: Path, fleet: Fleet) -> Iterator[AgentProcess]:
    with reserved_port() as port:
        yield AgentProcess(tmp_path / "agent", f"mqtt://127.0.0.1:{port}", fleet)


def _fails(agent: AgentProcess, *arguments: str) -> str:
    done = agent.command(*arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_init_makes_key_and_trust_store_once(agent: AgentProcess) -> None:
    key = agent.init()
    assert key["keytype"] == "ed25519"
    assert agent.init() == key
    assert agent.state_dir.stat().st_mode & 0o777 == 0o700
    assert (agent.state_dir / "device.pem").stat().st_mode & 0o777 == 0o600


def test_init_refuses_what_is_no_root_of_this_fleet(agent: AgentProcess, tmp_path: Path, fleet: Fleet) -> None:
    bad = tmp_path / "bad.json"
    assert "No such file" in _fails(agent, "init", "--root", str(bad))
    bad.write_bytes(b"{}")
    _fails(agent, "init", "--root", str(bad))
    bad.write_bytes(Fleet(fleet="other").first_root)
    assert "scope" in _fails(agent, "init", "--root", str(bad))
    document = json.loads(fleet.first_root)
    document["signatures"] = document["signatures"][:1]
    bad.write_text(json.dumps(document))
    assert "root" in _fails(agent, "init", "--root", str(bad))
    assert not (agent.state_dir / "trust").exists()


def test_another_root_needs_a_decision(agent: AgentProcess, tmp_path: Path) -> None:
    agent.init()
    other = tmp_path / "other.json"
    other.write_bytes(Fleet().first_root)
    assert "conflict" in _fails(agent, "init", "--root", str(other))
    assert agent.command("init", "--root", str(other), "--replace").returncode == 0


def test_mistakes_are_one_line(agent: AgentProcess) -> None:
    assert "offline" in _fails(agent, "status")
    told = agent.config.read_text()
    agent.config.write_text(told.replace("[http]\nport = 0\n", ""))
    assert "add the lines `[http]` and `port = 0`" in _fails(agent, "status")
    agent.config.write_text(told)
    agent.config.write_text(agent.config.read_text() + "[surprise]\n")
    assert "unknown key surprise" in _fails(agent, "run")
    agent.config.unlink()
    assert "No such file" in _fails(agent, "doctor")


@pytest.mark.parametrize(
    "words",
    [[], ["frobnicate"], ["--frob"], ["run", "--frob"], ["init"], ["enroll", "--group", "g"]],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("\n")) == (2, 1)
    assert err.startswith("fairlead-agent: ")
    assert "--help" in err


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "parse: "), (b"\xff", "parse: "), (b"{}", "root"), (None, "setup: "), (bytes(600_000), "size")],
)
def test_a_root_that_is_none_is_named(agent: AgentProcess, tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_bytes(content)
    err = _fails(agent, "init", "--root", str(path))
    assert said in err
    assert str(path) in err


def test_a_root_without_end_is_not_read_to_its_end(agent: AgentProcess) -> None:
    assert "size: /dev/zero" in _fails(agent, "init", "--root", "/dev/zero")


@pytest.mark.parametrize(
    "server", ["", "nonsense", "ftp://x", "http://", "http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:0"]
)
def test_enrolling_at_what_is_no_server(agent: AgentProcess, server: str) -> None:
    err = _fails(agent, "enroll", "--server", server, "--token", "t", "--group", "line-1")
    assert "is not http(s)://host:port" in err


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "t\u00f6ken", "@junk", "@empty", "@/dev/zero"])
def test_enrolling_with_what_is_no_token(agent: AgentProcess, token: str) -> None:
    (agent.directory / "junk").write_bytes(b"\xff\xfe")
    (agent.directory / "empty").write_bytes(b"")
    given = token.replace("@", f"@{agent.directory}/") if token in ("@junk", "@empty") else token
    err = _fails(agent, "enroll", "--server", "http://127.0.0.1:1", "--token", given, "--group", "line-1")
    assert "unauthorized: a token is one word" in err


@pytest.mark.parametrize("name", ["no-such-user-here", "root"])
def test_an_unfit_worker_user_is_one_line(agent: AgentProcess, tmp_path: Path, name: str) -> None:
    agent.config.write_text(f'worker_user = "{name}"\n' + agent.config.read_text())
    for command in (("run",), ("init", "--root", str(tmp_path / "agent" / "root.json"))):
        said = _fails(agent, *command)
        assert said.startswith("fairlead-agent: setup: ")
        assert name in said
    assert not agent.state_dir.exists()
    rows = {line.split()[1]: line for line in agent.command("doctor").stdout.splitlines()}
    assert name in rows["workers"]
    assert not rows.keys() & {"key", "trust"}, "with whose rights?"


def test_doctor_says_what_to_do(agent: AgentProcess) -> None:
    done = agent.command("doctor")
    assert done.returncode == 1
    assert "fairlead-agent init" in done.stdout
    agent.init()
    (agent.state_dir / "device.pem").chmod(0o644)
    lines = agent.command("doctor").stdout.splitlines()
    bad = {line.split()[1]: line for line in lines if line.startswith("BAD")}
    assert bad.keys() == {"key", "broker"}
    assert "chmod 600" in bad["key"]
    assert "Connection refused" in bad["broker"]


class _Register(BaseHTTPRequestHandler):
    """Answers one kind of request, as the test has set it."""

    server: "_Server"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        data = json.dumps(self.server.answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class _Server(HTTPServer):
    status = 201
    answer: Any = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Register)
        self.seen: list[tuple[str, str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server(fleet: Fleet) -> Iterator[_Server]:
    with _Server() as server:
        server.answer = {"id": "node-1", "group": "line-1", "root": json.loads(fleet.first_root)}
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_enroll(agent: AgentProcess, server: _Server, fleet: Fleet, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    arguments = ("enroll", "--server", server.url, "--token", f"@{token}", "--group", "line-1")
    digest = hashlib.sha256(fleet.first_root).hexdigest()
    wrong = "0" * 64
    assert digest in _fails(agent, *arguments, "--root-sha256", wrong)
    for _ in range(2):
        done = agent.command(*arguments, "--root-sha256", digest)
        assert done.returncode == 0, done.stderr
        assert digest in done.stdout
        assert "enrolled node-1 in group line-1\n" in done.stdout
    path, authorization, body = server.seen[-1]
    assert path == "/api/nodes/register"
    assert authorization == "Bearer secret"
    assert body == {"id": "node-1", "group": "line-1", "class": "x86_64", "public_key": dict(agent.init())}


def test_enrolling_again_says_in_which_group_the_device_stays(agent: AgentProcess, server: _Server) -> None:
    server.status = 200
    done = agent.command("enroll", "--server", server.url, "--token", "x", "--group", "line-2")
    assert "enrolled node-1 in group line-1\n" in done.stdout
    assert "`fairlead move node-1 line-2` moves it" in done.stdout


def test_enroll_that_the_server_refuses(agent: AgentProcess, server: _Server) -> None:
    arguments = ("enroll", "--server", server.url, "--token", "x", "--group", "line-1")
    server.status, server.answer = 409, {"code": "conflict", "detail": "another key"}
    assert "conflict: another key" in _fails(agent, *arguments)
    server.status, server.answer = 500, "nonsense"
    assert "HTTP 500" in _fails(agent, *arguments)
    server.status, server.answer = 200, {}
    assert "no root" in _fails(agent, *arguments)
    with reserved_port() as port:
        nobody = f"http://127.0.0.1:{port}"
        assert "unreachable" in _fails(agent, "enroll", "--server", nobody, "--token", "x", "--group", "g")
    assert "is not http" in _fails(agent, "enroll", "--server", "ftp://x", "--token", "x", "--group", "g")
    assert "group" in _fails(agent, "enroll", "--server", server.url, "--token", "x", "--group", "Not/OK")
