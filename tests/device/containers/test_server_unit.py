"""deploy/systemd/fairlead-server.service under a real systemd, set up with the commands of docs/operations.md."""

import json
import re
import site
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker_config.site import Site
from tests.fakes import nspawn
from tests.fakes.nspawn import Container
from tests.fakes.running_server import Desk
from tests.fakes.waiting import until

ROOT = Path(__file__).parents[3]
SERVER = "fairlead-server.service"
PROGRAM = "/opt/fairlead-server/.venv/bin/fairlead"
STATE = "/var/lib/fairlead-server"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Container]:
    """A Debian with Fairlead's program, and what the desk and the broker have made for its server."""
    reason = nspawn.missing()
    if reason is None and not (nspawn.build_tree() / "usr/bin" / PYTHON).exists():
        reason = f"Debian's Python is not this one, {PYTHON}: the packages of this environment do not fit"
    if reason is not None:
        pytest.skip(reason)
    desk = Desk(tmp_path)
    desk.pack("web", "1.0.0", 1)
    desk.export(tmp_path / "server")
    Site(fleet="acme", hosts=("127.0.0.1",)).make(tmp_path / "broker")
    packages = site.getsitepackages()[0]
    with nspawn.running_container(binds=[Path(f"{ROOT}:/opt/code"), Path(f"{packages}:/opt/packages")]) as machine:
        for name in ("server", "broker"):
            machine.put(tmp_path / name, f"/root/fairlead/{name}")
        machine.put(ROOT / "deploy", "/root/fairlead/deploy")
        machine.do(f"mkdir -p {Path(PROGRAM).parent}")
        start = "from server.cli.entry import main; main()"
        program = f'#!/bin/sh\nPYTHONPATH=/opt/code:/opt/packages exec {PYTHON} -c "{start}" "$@"\n'
        machine.put_text(PROGRAM, program)
        machine.do(f"chmod 755 {PROGRAM}")
        yield machine


def health(machine: Container) -> dict[str, Any] | None:
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/health').read().decode())"
    status, out, _ = machine.run(f'{PYTHON} -c "{ask}" 2>/dev/null')
    answer: dict[str, Any] | None = json.loads(out) if status == 0 else None
    return answer


def main_pid(machine: Container) -> int:
    return int(machine.do(f"systemctl show -p MainPID --value {SERVER}"))


def test_the_server_runs_in_its_cage_and_comes_back(machine: Container) -> None:
    block = re.search(r"```sh service\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    assert block is not None
    lines = [line for line in block[1].splitlines() if "setup.sh install" not in line]
    assert len(lines) == block[1].count("\n") - 1, "the program is there already"
    machine.do("cd /root/fairlead && set -e\n" + "\n".join(lines))

    answer = until(lambda: health(machine))
    assert answer is not None and answer["broker"]["url"] == "mqtts://127.0.0.1:8884"
    said = machine.do(f"journalctl -u {SERVER} -o cat")
    assert "fleet acme" in said and "catalogue: root 1" in said
    assert "Traceback" not in said and "ermission" not in said, said
    status = machine.do(f"cat /proc/{main_pid(machine)}/status")
    assert machine.do("id -u fairlead-server").strip() in re.findall(r"^Uid:\t(\d+)", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE) and re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert machine.do(f"find {STATE} ! -user fairlead-server -o -type f -perm /077 -name '*token'") == ""
    assert machine.do(f"stat -c %a {STATE} {STATE}/token {STATE}/enrol-token").split() == ["700", "600", "600"]

    machine.do("sed -i '/^FAIRLEAD_BROKER_DIR/d' /etc/fairlead-server/environment")
    before = main_pid(machine)
    machine.do(f"kill -9 {before}")
    until(lambda: (health(machine) or {"broker": {}})["broker"].get("connected"))
    assert main_pid(machine) != before, "and the embedded broker runs in the same cage"
    exposure = machine.do(f"systemd-analyze security --no-pager {SERVER} | grep Overall").split(": ")[1].split()[0]
    assert f"exposure level {exposure}." in (ROOT / "docs/operations.md").read_text()
    machine.do(f"systemctl stop {SERVER}")
    assert machine.do(f"systemctl show -p Result --value {SERVER}").strip() == "success"
