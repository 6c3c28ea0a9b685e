"""What we hand to users as an example has to work as it stands."""

import re
import subprocess
from pathlib import Path

import pytest

from device_agent.adapters.state_folders import KEY
from device_agent.host.place import CONFIG, PROGRAM, STATE_DIR, UNIT
from device_agent.settings import Intervals, load

ROOT = Path(__file__).parents[2]


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
        "docs/testing.md",
    ):
        document = ROOT / name
        for target in _links(document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{name} links to {target}"


def _links(text: str) -> list[str]:
    pieces = text.split("](")[1:]
    targets = [piece.split(")")[0].split("#")[0] for piece in pieces]
    return [target for target in targets if target and "://" not in target]
