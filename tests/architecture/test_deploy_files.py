"""What we hand to users as an example has to work as it stands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from broker_config.site import Site
from device_agent.adapters.state_folders import KEY
from device_agent.host.place import CONFIG, PROGRAM, STATE_DIR, UNIT
from device_agent.settings import Intervals, load
from server.settings import load as server_settings

ROOT = Path(__file__).parents[2]
SERVER_UNIT = "fairlead-server.service"


def test_the_example_agent_settings_are_accepted():
    settings = load(ROOT / "deploy" / "agent.toml")
    assert (settings.device, settings.fleet, settings.device_class) == ("node-1", "acme", "aarch64")
    assert settings.broker.tls


def test_the_unit_is_of_the_paths_and_the_rhythm_of_the_agent():
    unit = (ROOT / "deploy" / "systemd" / UNIT).read_text(encoding="utf-8")
    assert f"ExecStart={PROGRAM} run --config {CONFIG}\n" in unit
    for path in (CONFIG, STATE_DIR / KEY):
        assert f"ConditionPathExists={path}\n" in unit
    watchdog = re.search(r"^WatchdogSec=(\d+)$", unit, re.MULTILINE)
    assert watchdog is not None
    # The loop is woken for its sign of life only after half of that time.
    assert int(watchdog[1]) / 2 > Intervals().heartbeat_s


def test_the_servers_example_settings_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Site(fleet="acme", hosts=("broker.example",)).make(tmp_path)
    lines = (ROOT / "deploy" / "systemd" / "fairlead-server.env").read_text(encoding="utf-8").splitlines()
    said = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert said["FAIRLEAD_BROKER_DIR"] == "/etc/fairlead-server/broker"
    for name, value in (said | {"FAIRLEAD_BROKER_DIR": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    settings = server_settings()
    assert (settings.public_url, settings.host, settings.port) == ("https://updates.example", "127.0.0.1", 8080)
    assert settings.model_fields_set >= {name.removeprefix("FAIRLEAD_").lower() for name in said}


def test_the_servers_unit_is_sound_and_of_the_paths_of_the_guide(tmp_path: Path) -> None:
    unit = (ROOT / "deploy" / "systemd" / SERVER_UNIT).read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for line, said in (
        ("User=fairlead-server", "useradd --system .* fairlead-server"),
        ("ExecStart=/opt/fairlead-server/.venv/bin/fairlead serve", "cp -r . /opt/fairlead-server"),
        ("Environment=FAIRLEAD_DATA_DIR=/var/lib/fairlead-server", "cp -r server /var/lib/fairlead-server"),
        ("EnvironmentFile=/etc/fairlead-server/environment", "fairlead-server.env /etc/fairlead-server/environment"),
    ):
        assert f"{line}\n" in unit
        assert re.search(said, guide), said
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / SERVER_UNIT
    copy.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", unit), encoding="utf-8")
    verified = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    secure = [analyze, "security", "--offline=true", "--threshold=15", "--no-pager", str(copy)]
    assert subprocess.run(secure, capture_output=True, check=False).returncode == 0, "exposure level above 1.5"


def test_an_agent_gets_no_other_packages_than_everybody():
    whole = _pins(ROOT / "requirements.lock")
    agent = _pins(ROOT / "requirements-agent.lock")
    assert {"tuf", "paho-mqtt", "psutil"} <= agent.keys()
    assert agent.items() <= whole.items()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bogus"], "unknown option --bogus: see --help"),
        (["--bogus", "x"], "unknown option --bogus: see --help"),
        (["--wheels"], "--wheels needs a value"),
        (["--no-start", "--variable"], "--variable needs a value"),
        (["please"], "unexpected please: see --help"),
    ],
)
def test_the_installing_script_says_which_word_is_wrong(words: list[str], said: str) -> None:
    script = ROOT / "deploy" / "install-agent.sh"
    done = subprocess.run(["bash", script, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"install-agent.sh: {said}\n")


def _pins(lock: Path) -> dict[str, tuple[str, ...]]:
    """Version and hashes by package."""
    entries = re.split(r"\n(?=\S)", lock.read_text(encoding="utf-8").strip())
    return {entry.partition("==")[0]: tuple(re.findall(r"==[^ ]+|sha256:\w+", entry)) for entry in entries}


def test_every_link_in_the_front_documents_leads_somewhere():
    for name in (
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/adr/README.md",
        "docs/device.md",
        "docs/operations.md",
        "docs/testing.md",
    ):
        document = ROOT / name
        for target in _links(document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{name} links to {target}"


def _links(text: str) -> list[str]:
    pieces = text.split("](")[1:]
    targets = [piece.split(")")[0].split("#")[0] for piece in pieces]
    return [target for target in targets if target and "://" not in target]
