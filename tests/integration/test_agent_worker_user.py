"""The whole agent as root with workers that are nobody: enrolment, updates, changes of mind, and what nobody leaves."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.adapters.state_folders import FOLDERS
from tests.fakes.agent_process import AgentProcess
from tests.fakes.agent_site import NODE, Site, running_site
from tests.fakes.brokers import RunningBroker, mosquitto
from tests.fakes.ports import reserved_port
from tests.fakes.trust_fleet import Fleet
from tests.fakes.waiting import until
from tests.fakes.worker_account import NAME, Python, account, as_account, reachable_folder, reachable_python

OWNER = f'worker_user = "{NAME}"'


@pytest.fixture(scope="module")
def python() -> Iterator[Python]:
    with reachable_python() as found:
        yield found


@pytest.fixture
def folder(python: Python) -> Iterator[Path]:
    with reachable_folder() as found:
        yield found


@pytest.fixture
def broker(folder: Path) -> Iterator[RunningBroker]:
    with mosquitto(folder) as found:
        yield found


def owners(path: Path) -> set[int]:
    return {found.lstat().st_uid for found in (path, *path.rglob("*"))}


def split(state: Path) -> None:
    """What strangers' bytes come from and go to is nobody's, and all else is root's."""
    user = account()
    for name in ("trust", "cache", "device.pem"):
        assert owners(state / name) == {user.uid}, name
    for name in ("slots", "journal", "services", "spool"):
        assert owners(state / name) == {0}, name
    assert (state.stat().st_uid, state.stat().st_mode & 0o7777) == (0, 0o711)
    assert as_account("ls", str(state / "slots")).returncode != 0
    assert {path.name for path in state.iterdir() if path.is_dir()} <= FOLDERS.keys()


def installs(site: Site, version: str) -> None:
    assert site.ended(site.deploy(version)) == ("committed", None)
    assert site.answers() == version


def again(site: Site, owner: str) -> None:
    """Stop the agent, and start it with these settings of the owner's; it is well."""
    until(lambda: site.server.heard(NODE, "heartbeat"))
    assert site.agent.kill(signal.SIGTERM) == 0
    before = len(site.server.heard(NODE, "heartbeat"))
    site.agent.config.write_text(f"{owner}\n" + site.agent.config.read_text().replace(OWNER, ""))
    site.agent.start()
    until(lambda: len(site.server.heard(NODE, "heartbeat")) > before, deadline_s=60)


def test_a_release_and_what_the_account_left_for_the_next(folder: Path, broker: RunningBroker, python: Python) -> None:
    """The resident is root all along; a secret of root's is behind every link."""
    secret = folder / "secret"
    secret.write_bytes(b"root's")
    secret.chmod(0o600)
    with running_site(folder / "agent", broker, owner=OWNER, python=python) as site:
        installs(site, "1.0.0")
        state = site.agent.state_dir
        split(state)
        assert Path(f"/proc/{site.agent.pid}").stat().st_uid == 0
        wanted = site.fleet.release("web", "1.1.0")[0].target.sha256
        left = f"cd {state}/cache; ln -s {secret} {wanted}; mkfifo {wanted}.part mirrors.json.new; mkdir -p a/b/c"
        assert as_account("sh", "-ec", left).returncode == 0
        os.link(secret, state / "cache" / ("0" * 64))
        installs(site, "1.1.0")
        until(lambda: {path.name for path in (state / "cache").iterdir()} <= {"mirrors.json"}, deadline_s=60)
        assert (secret.stat().st_uid, secret.stat().st_mode & 0o777, secret.stat().st_nlink) == (0, 0o600, 1)
        assert secret.read_bytes() == b"root's"
        bad = site.deploy("2.0.0-bad")
        assert site.ended(bad) == ("rolled_back", "unhealthy")
        split(state)
        assert "Traceback" not in site.agent.log.read_text()


def test_a_worker_user_comes_later_and_goes_again(folder: Path, broker: RunningBroker, python: Python) -> None:
    """From a device of one identity to two, and back: what it trusts and what it has installed stays."""
    with running_site(folder / "agent", broker, owner=OWNER, python=python) as site:
        again(site, "")
        installs(site, "1.0.0")
        state = site.agent.state_dir
        assert owners(state) == {0}
        again(site, OWNER)
        installs(site, "1.1.0")
        split(state)
        again(site, "")
        assert site.ended(site.deploy("2.0.0-bad")) == ("rolled_back", "unhealthy")
        assert owners(state) == {0}
        assert site.answers() == "1.1.0"


def test_a_floor_file_that_the_account_replaced(folder: Path, broker: RunningBroker, python: Python) -> None:
    """The device trusts nothing any more and says so; its resident goes on, and comes up again."""
    with running_site(folder / "agent", broker, owner=OWNER, python=python) as site:
        installs(site, "1.0.0")
        state = site.agent.state_dir
        assert as_account("sh", "-ec", f"cd {state}/trust; rm floors.json; mkfifo floors.json").returncode == 0
        again(site, OWNER)
        root = site.agent.directory / "root.json"
        assert site.agent.command("init", "--root", str(root), "--replace").returncode == 0
        split(state)
        installs(site, "1.1.0")


@pytest.fixture
def agent(folder: Path, python: Python) -> Iterator[AgentProcess]:
    """One whose broker is not there."""
    with reserved_port() as port:
        yield AgentProcess(folder / "agent", f"mqtt://127.0.0.1:{port}", Fleet(), owner=OWNER, python=python)


def test_enrolment_and_doctor(agent: AgentProcess) -> None:
    key = agent.init()
    assert agent.init() == key
    user = account()
    for name in ("trust", "cache", "device.pem"):
        assert owners(agent.state_dir / name) == {user.uid}
    rows = {line.split()[1]: line for line in agent.command("doctor").stdout.splitlines()}
    assert {name for name, row in rows.items() if row.startswith("BAD")} == {"broker"}
    assert f"run as {NAME}, without privileges" in rows["workers"]
    assert "root version 1" in rows["trust"]
    agent.state_dir.chmod(0o755)
    assert "chmod 711" in agent.command("doctor").stdout


def test_a_trust_store_that_root_would_be_led_astray_by(folder: Path, agent: AgentProcess) -> None:
    """`init` and `doctor` look into the account's folders as the account: links to root's files lead them nowhere."""
    agent.init()
    victim, trust = folder / "victim", agent.state_dir / "trust"
    left = f"cd {trust}; rm lock; ln -s {victim} lock; for name in floors.json.new metadata-1 work; do rm -rf $name; "
    left += f"ln -s {victim} $name; done; mkfifo metadata-7; mkdir -p allowance.json/a"
    assert as_account("sh", "-ec", left).returncode == 0
    rows = agent.command("doctor").stdout
    assert "BAD trust      the trust store's root.json is missing or altered" in rows
    assert agent.command("init", "--root", str(agent.directory / "root.json"), "--replace").returncode == 0
    assert "ok  trust" in agent.command("doctor").stdout
    assert not victim.exists()
    assert owners(agent.state_dir / "trust") == {account().uid}
