"""The operator's commands against the real server, its real broker and a real signed catalogue."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from tests.fakes.command_line import CommandHere, CommandLine
from tests.fakes.waiting import until

FIRMWARE = [sys.executable, "-c", "from firmware_tools.cli import main; main()"]


@dataclass
class Site:
    """A server with a published catalogue of web 1.0.0 and 1.1.0, and one enrolled device that is away."""

    home: Path
    url: str
    broker: str

    @property
    def variables(self) -> dict[str, str]:
        return {"FAIRLEAD_SERVER": self.url, "FAIRLEAD_DATA_DIR": str(self.home / "data")}


def firmware(home: Path, *words: str) -> None:
    ran = subprocess.run([*FIRMWARE, *words], cwd=home, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()


def release(home: Path, version: str, counter: int) -> None:
    tree = home / f"tree-{version}"
    tree.mkdir()
    (tree / "run").write_text(version)
    (tree / "run").chmod(0o755)
    artifact = f"web-{version}.tar.zst"
    firmware(home, "pack", tree.name, "--out", artifact, "--package", "web", "--version", version, "--counter",
             str(counter), "--kind", "service", "--class", "x86_64", "--exec", "run")  # fmt: skip
    firmware(home, "add", "desk", artifact)
    firmware(
        home, "sign", "desk", "--key", "desk/offline/targets-1.pem", "--key", "desk/offline/targets-2.pem", "--yes"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("site")
    firmware(home, "init", "desk", "--fleet", "acme", "--no-passphrase")
    firmware(home, "export-server", "desk", "--out", "data")
    variables = {"FAIRLEAD_PORT": "0", "FAIRLEAD_BROKER_PORT": "0"}
    with (home / "log").open("w") as log:
        process = CommandLine(home, variables | {"FAIRLEAD_COMMAND_TIMEOUT_S": "0.5"}).start(
            "serve", "--data-dir", "data", stderr=log
        )
        try:
            assert process.stdout is not None
            said = dict(process.stdout.readline().split(" ", 1) for _ in range(2))
            site = Site(home, said["server"].strip(), said["broker"].strip())
            release(home, "1.0.0", 1)
            release(home, "1.1.0", 2)
            yield site
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()
    assert process.returncode == 0


@pytest.fixture
def here(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandHere:
    return CommandHere(site.home, site.variables, monkeypatch, capsys)


def good(here: CommandHere, *words: str) -> str:
    ran = here.run(*words)
    assert (ran.status, ran.err) == (0, ""), ran
    return ran.out


def read(here: CommandHere, *words: str) -> dict:
    return json.loads(good(here, *words, "--json"))


def test_an_operators_day(site: Site, here: CommandHere) -> None:
    """From an empty server to a recall; every answer passes the client's check of its form."""
    assert "no devices yet" in good(here, "devices")
    assert "the catalogue is empty" in good(here, "releases")
    assert "no rollouts yet" in good(here, "rollouts")
    assert "unknown-update" in here.fails("status", "--watch")

    assert "2 releases" in good(here, "catalogue", "upload", "desk")
    assert "2 releases" in good(here, "catalogue", "upload", "desk"), "uploading twice is once"
    assert {row["version"] for row in read(here, "releases")["releases"]} == {"1.0.0", "1.1.0"}
    assert "1.1.0" in good(here, "releases")

    key = CryptoSigner.generate_ed25519().public_key.to_dict()
    (site.home / "node-1.json").write_text(json.dumps(key))
    enrol = ["enrol", "node-1", "--group", "line-1", "--class", "x86_64", "--key", "node-1.json"]
    assert "node-1" in good(here, *enrol)
    (site.home / "other.json").write_text(json.dumps(CryptoSigner.generate_ed25519().public_key.to_dict()))
    assert "(conflict)" in here.fails(*enrol[:-1], "other.json")
    assert [node["id"] for node in read(here, "devices", "--group", "line-1")["nodes"]] == ["node-1"]
    assert "never" in good(here, "devices")
    assert "line-1" in good(here, "groups")

    words = ["publish", "web", "1.1.0", "--group", "line-1", "--waves", "0,100", "--soak", "3600", "--id", "up-1"]
    assert "wave 1 of 2" in good(here, *words)
    assert read(here, *words)["job_id"] == "up-1", "publishing twice is once"
    assert read(here, "rollouts", "--state", "active")["updates"][0]["job_id"] == "up-1"
    assert "up-1" in good(here, "status")
    assert read(here, "status", "up-1")["package"] == "web"
    assert "held" in good(here, "hold", "up-1", "--reason", "tea")
    assert "tea" in good(here, "status", "up-1")
    assert here.run("status", "up-1", "--watch").status == 3
    assert "(wrong-state)" in here.fails("hold", "up-1")
    assert "active" in good(here, "resume", "up-1")
    until(lambda: read(here, "status", "up-1")["wave"] == 0)
    good(here, "advance", "up-1")
    until(lambda: read(here, "status", "up-1")["wave"] == 1)
    assert "recalled" in good(here, "recall", "up-1", "--reason", "it was the wrong one")
    assert here.run("status", "--watch").status == 4, "the newest, where none is active"

    log = good(here, "audit")
    for verb in ("hold", "resume", "advance", "recall"):
        assert verb in log
    assert len(read(here, "audit", "--most", "2")["entries"]) == 2

    assert "(offline)" in here.fails("services", "node-1")
    assert "(offline)" in here.fails("logs", "node-1", "web")
    assert "(offline)" in here.fails("rollback", "node-1")
    assert "(offline)" in here.fails("retry", "--device", "node-1")
    assert here.run("health").status == 1
    assert "line-2" in good(here, "move", "node-1", "line-2")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["services", "nobody"], "unknown-node"),
        (["status", "nothing"], "unknown-update"),
        (["recall", "nothing"], "unknown-update"),
        (["devices", "--group", "nowhere"], "unknown-group"),
        (["publish", "web", "9.9.9", "--group", "line-1"], "unknown-release"),
        (["publish", "nothing", "1.0.0", "--group", "line-1"], "unknown-release"),
        (["publish", "web", "1.1.0", "--nodes", "nobody"], "unknown-node"),
        (["publish", "web", "1.1.0", "--group", "line-1", "--failure-rate", "7"], "bad-request"),
        (["publish", "web", "1.1.0", "--group", "line-1", "--window", "late"], "bad-request"),
        (["publish", "web", "1.1.0", "--group", "line-1", "--url", "garbage"], "bad-request"),
        (["publish", "web", "1.1.0", "--group", "line-1", "--on-failure", "shrug"], "bad-request"),
        (["publish", "web", "../../x", "--group", "line-1"], "bad-request"),
        (["move", "nobody", "line-1"], "unknown-node"),
        (["devices", "--token", "wrong"], "unauthorized"),
    ],
)
def test_the_servers_refusals_are_one_line(site: Site, here: CommandHere, words: list[str], code: str) -> None:
    good(here, "catalogue", "upload", "desk")
    assert f"({code})" in here.fails(*words)


def test_the_doctor_finds_a_healthy_server_and_says_that_its_broker_is_for_trials(
    site: Site, here: CommandHere
) -> None:
    found = {row["what"]: row for row in json.loads(here.run("doctor", "--json").out)["findings"]}
    for what in ("server", "broker", "clock", "token", "retained", "catalogue expiry", "broker queue"):
        assert found[what]["verdict"] == "ok", found[what]
    assert "embedded" in found["broker version"]["text"]
    text = here.run("doctor").out
    assert text.count("\n") == len(found)
    assert text.startswith("ok   server: version")


def test_the_doctor_fails_where_a_token_is_wrong(here: CommandHere) -> None:
    ran = here.run("doctor", "--token", "wrong")
    assert ran.status == 1
    assert "fail token" in ran.out


@pytest.mark.parametrize("url", ["garbage", "mqtt://127.0.0.1:1", "mqtts://127.0.0.1:1"])
def test_the_doctor_fails_where_the_broker_that_was_named_is_not_there(here: CommandHere, url: str) -> None:
    ran = here.run("doctor", "--broker", url)
    assert ran.status == 1
    assert ran.out.count("fail") == ran.out.count("fail broker probe: ") == 1


def test_serve_says_in_one_line_why_it_can_not_start(tmp_path: Path) -> None:
    line = CommandLine(tmp_path, {"FAIRLEAD_PORT": "0", "FAIRLEAD_BROKER_PORT": "0"})
    for words in (["--fleet", "No Id"], ["--signing", "nobody"], ["--data-dir", "/proc/none"], ["--port", "70000"]):
        ran = line.run("serve", *words)
        assert ran.status == 1, ran
        assert ran.err.strip().count("\n") == 0, ran.err
        assert "Traceback" not in ran.err


def test_serve_refuses_another_fleet_than_that_of_the_root_in_its_data_directory(tmp_path: Path) -> None:
    firmware(tmp_path, "init", "desk", "--fleet", "acme", "--no-passphrase")
    firmware(tmp_path, "export-server", "desk", "--out", "data")
    line = CommandLine(tmp_path, {"FAIRLEAD_PORT": "0", "FAIRLEAD_BROKER_PORT": "0"})
    ran = line.run("serve", "--data-dir", "data", "--fleet", "beta")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("fairlead: setup: the root in data is of fleet acme, not of beta: leave --fleet out")
    assert ran.err.count("\n") == 1


def test_a_variable_that_is_spelt_wrongly_is_a_warning_once(site: Site, tmp_path: Path) -> None:
    slip = {"FAIRLEAD_COMAND_TIMEOUT_S": "1"}
    says = "the variable FAIRLEAD_COMAND_TIMEOUT_S is not read by anything: do you mean FAIRLEAD_COMMAND_TIMEOUT_S?"
    ran = CommandLine(site.home, site.variables | slip).run("releases")
    assert (ran.status, ran.err) == (0, f"fairlead: {says}\n")
    ran = CommandLine(tmp_path, slip).run("serve", "--data-dir", "/proc/none")
    assert (ran.status, ran.err.count(says)) == (1, 1)
