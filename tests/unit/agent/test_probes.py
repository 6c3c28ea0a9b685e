"""Readings and verdicts."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from device_agent.probes.judgement import judge, judge_machine, worst
from device_agent.probes.log_errors import LogErrors
from device_agent.probes.machine import MachineProbe, running_names
from device_agent.probes.network import NetworkProbe, check_dns, check_internet
from device_agent.probes.probes import DeviceProbes, check_process, check_service
from device_agent.settings import AgentSettings, ProbeSettings, Thresholds, parse
from fleet_protocol.messages import CheckResult, Verdict
from tests.fakes.agent_ports import FakeService, FakeServices
from tests.fakes.waiting import until


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(None, "unknown"), (0.0, "ok"), (90.0, "ok"), (90.1, "warning"), (100.0, "warning"), (100.1, "critical")],
)
def test_thresholds(value: float | None, verdict: Verdict) -> None:
    assert judge("disk", value, 100.0, "").verdict == verdict


def test_the_worst_counts() -> None:
    def check(verdict: Verdict) -> CheckResult:
        return CheckResult(name="x", value=None, threshold=None, verdict=verdict, text="")

    assert worst([]) == "ok"
    assert worst([check("ok"), check("critical"), check("warning")]) == "critical"
    assert worst([check("unknown"), check("ok")]) == "unknown"


def test_the_machine_is_read(tmp_path: Path) -> None:
    probe = MachineProbe(tmp_path)
    values = probe.read()
    assert 0 < values["memory_percent"] <= 100
    assert 0 <= values["disk_percent"] <= 100
    assert values["agent_memory_bytes"] > 0
    assert all(isinstance(value, float) for value in values.values())
    assert probe.read() is values
    assert "disk_percent" not in MachineProbe(tmp_path / "gone").read()
    names = {check.name for check in judge_machine(values, 2, Thresholds())}
    assert {"cpu", "memory", "disk", "load"} <= names


def test_every_watched_disk_is_read_once(tmp_path: Path) -> None:
    """One that holds the state too is `disk` already; one that is gone is `unknown`, not silence."""
    disks = (tmp_path, Path("/proc"), tmp_path / "gone")
    settings = AgentSettings(
        device="node-1", fleet="acme", device_class="x", state_dir=tmp_path, probes=ProbeSettings(disks=disks)
    )
    checks = DeviceProbes(settings, FakeServices(), lambda: True).checks()
    found = {check.name: check.verdict for check in checks if check.name.startswith("disk")}
    assert found == {"disk": found["disk"], "disk/proc": "ok", f"disk{tmp_path}/gone": "unknown"}


def test_inodes_are_judged_like_bytes() -> None:
    values = {"cpu_percent": 1.0, "memory_percent": 1.0, "disk_percent": 1.0, "inodes_percent": 99.0, "load_5": 0.1}
    found = {check.name: check for check in judge_machine(values, 1, Thresholds())}
    assert (found["inodes"].verdict, found["inodes"].threshold) == ("critical", 95.0)
    del values["inodes_percent"]
    assert "inodes" not in {check.name for check in judge_machine(values, 1, Thresholds())}


def test_log_files_of_other_programs_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "other.log"
    log.write_text("")
    settings = AgentSettings(
        device="node-1", fleet="acme", device_class="x", state_dir=tmp_path, probes=ProbeSettings(log_files=(log,))
    )
    probes = DeviceProbes(settings, FakeServices(), lambda: True)
    probes.checks()
    log.write_text("ERROR\n" * 1_000)
    found = {check.name: check for check in probes.checks()}[f"log_errors{log}"]
    assert found.verdict == "critical"
    assert found.value is not None
    assert found.threshold is not None


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("mqtt://broker.example.com", "broker.example.com"),
        ("mqtt://192.0.2.1:1883", None),
        ("mqtt://[2001:db8::1]", None),
        ("mqtt://localhost", None),
    ],
)
def test_the_brokers_name_must_resolve_unless_the_owner_names_another(url: str, wanted: str | None) -> None:
    table = {"device": "a", "fleet": "b", "class": "c", "state_dir": "s", "broker": {"url": url}}
    assert parse(table, Path("agent.toml")).probes.dns_name == wanted
    named = table | {"probes": {"dns_name": "other.example.com"}}
    assert parse(named, Path("agent.toml")).probes.dns_name == "other.example.com"


def test_error_lines_a_minute(tmp_path: Path) -> None:
    now = [0.0]
    log, errors = tmp_path / "log", LogErrors(mono_s=lambda: now[0])
    log.write_text("ERROR of before\n")
    assert errors.per_minute({"web": log}) == {}
    with log.open("a") as sink:
        sink.write("all is well, no errors\nERROR: one\nTraceback (most recent call last):\n  CRITICAL two\n")
    now[0] = 30.0
    assert errors.per_minute({"web": log}) == {"web": 6.0}
    now[0] = 60.0
    log.write_text("FATAL\n")
    assert errors.per_minute({"web": log, "absent": tmp_path / "none"}) == {"web": 2.0}
    now[0] = 90.0
    assert errors.per_minute({"web": log, "absent": tmp_path / "none"}) == {"web": 0.0, "absent": 0.0}


def test_services() -> None:
    thresholds = Thresholds()
    assert check_service(FakeService("web"), thresholds).verdict == "ok"
    assert check_service(FakeService("web", running=False), thresholds).verdict == "critical"
    assert check_service(FakeService("web", restarts=6), thresholds).verdict == "warning"
    assert check_service(FakeService("web", wanted=False, running=False), thresholds).verdict == "ok"


def test_processes() -> None:
    own = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert own in running_names()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        name = Path(f"/proc/{child.pid}/comm").read_text().strip()
        assert check_process(name, running_names()).verdict == "ok"
    assert check_process("no-such-process-here", running_names()).verdict == "critical"


def test_network_checks() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert check_internet("127.0.0.1", port).verdict == "ok"
    assert check_internet("127.0.0.1", port).verdict == "critical"
    assert check_dns("localhost").verdict == "ok"
    assert check_dns("a" * 64 + ".invalid").verdict == "critical"


def test_a_network_round_is_never_waited_for() -> None:
    assert NetworkProbe(ProbeSettings()).results() == []
    probe = NetworkProbe(ProbeSettings(dns_name="localhost"))
    assert probe.results()[0].verdict in ("unknown", "ok"), "answers at once, whether or not the round is over"
    until(lambda: probe.results()[0].verdict == "ok")


def test_all_together(tmp_path: Path) -> None:
    settings = AgentSettings(
        device="node-1",
        fleet="acme",
        device_class="x",
        state_dir=tmp_path,
        probes=ProbeSettings(processes=("no-such-process-here",)),
    )
    connected = [False]
    services = FakeServices([FakeService("web")], errors={"web": 31.0})
    probes = DeviceProbes(settings, services, lambda: connected[0])
    assert probes.telemetry()["memory_percent"] > 0
    by_name = {check.name: check for check in probes.checks()}
    assert by_name["broker"].verdict == "critical"
    assert by_name["service/web"].verdict == "ok"
    assert by_name["log_errors/web"].verdict == "critical"
    assert by_name["process/no-such-process-here"].verdict == "critical"
    connected[0] = True
    assert {check.name: check for check in probes.checks()}["broker"].verdict == "ok"
