"""A disk that is full or read-only, and a clock that is wrong: the old release runs on, and the device says why."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.agent_process import AgentProcess, ServerSide, running_agent
from tests.fakes.artifacts import packed
from tests.fakes.brokers import RunningBroker, amqtt
from tests.fakes.http_server import FileServer
from tests.fakes.memory_cgroup import MemoryCgroup
from tests.fakes.shifted_clock import needs_compiler, shift_wall_clock
from tests.fakes.trust_fleet import Fleet
from tests.fakes.waiting import until

NODE = "node-1"
MIB = 1024 * 1024
DAY_S = 24 * 3_600
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
SETTINGS = "[intervals]\nheartbeat_s = 0.3\ntelemetry_s = 5\nhealth_s = 1\nreconnect_most_s = 0.2\nretry_most_s = 1\n"


class Site:
    """A fleet with one package of files, and one agent on a disk of its own."""

    def __init__(self, fleet: Fleet, files: FileServer, server: ServerSide, agent: AgentProcess) -> None:
        self.fleet, self.files, self.server, self.agent = fleet, files, server, agent

    def add(self, version: str, counter: int, size: int = 1_000) -> None:
        data = hashlib.shake_128(version.encode()).digest(size)
        artifact = packed({"version": version.encode(), "data": data})
        target = self.fleet.add_release(
            "data",
            version,
            counter,
            data=artifact.data,
            format="tar.zst",
            unpacked_size=artifact.unpacked_size,
            unpacked_files=artifact.unpacked_files,
        )
        self.files.serve(artifact.data, f"/{target.sha256}")

    def deploy(self, version: str) -> str:
        rows = self.fleet.release("data", version)
        urls = [self.files.url(f"/{row.target.sha256}") for row in rows]
        deployment = self.fleet.deployment("data", version, urls=urls, probation_s=0)
        self.fleet.manifest(deployment)
        self.server.publish_all()
        return deployment.id

    def installs(self, version: str) -> None:
        self.deploy(version)
        until(lambda: self.state.get("version_data") == version, deadline_s=90)

    def outcome(self, deployment: str) -> tuple[str, str | None] | None:
        for report in self.server.reports(NODE):
            attempt = report["attempt"]
            if attempt and attempt["deployment"] == deployment and attempt["outcome"]:
                return attempt["outcome"], attempt["code"]
        return None

    @property
    def state(self) -> Any:
        return self.server.newest(NODE, "state")

    def runs(self, version: str) -> None:
        """The release is active and whole, the agent lives and says so."""
        current = self.agent.state_dir / "slots/data/current"
        assert (current / "version").read_text() == version
        before = len(self.server.heard(NODE, "heartbeat"))
        until(lambda: len(self.server.heard(NODE, "heartbeat")) > before + 1)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RunningBroker]:
    with amqtt(tmp_path) as found:
        yield found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """16 MiB of the device's own."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "disk", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _sites(place: Path, broker: RunningBroker) -> Iterator[Site]:
    fleet, files = Fleet(), FileServer()
    server = ServerSide(broker, fleet)
    try:
        with running_agent(place / "agent", broker.url, fleet, settings=SETTINGS) as agent:
            site = Site(fleet, files, server, agent)
            site.add("1.0.0", 1)
            site.add("1.1.0", 2)
            site.add("2.0.0", 3, size=12 * MIB)
            site.add("2.1.0", 4, size=6 * MIB)
            fleet.publish()
            fleet.assignment()
            yield site
    finally:
        server.close()
        files.close()


@pytest.fixture
def site(tmp_path: Path, broker: RunningBroker) -> Iterator[Site]:
    yield from _sites(tmp_path, broker)


@pytest.fixture
def small_site(disk: Path, broker: RunningBroker) -> Iterator[Site]:
    yield from _sites(disk, broker)


def _free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


@needs_root
def test_a_release_that_does_not_fit_is_given_up_and_its_space_given_back(small_site: Site, disk: Path) -> None:
    """12 MiB fit once: the download succeeds, and unpacking it beside itself does not."""
    small_site.installs("1.0.0")
    before = _free(disk)
    deployment = small_site.deploy("2.0.0")
    assert until(lambda: small_site.outcome(deployment), deadline_s=60) == ("failed", "no-space")
    until(lambda: _free(disk) > before - MIB)
    small_site.runs("1.0.0")
    small_site.installs("1.1.0")


@needs_root
@pytest.mark.parametrize("leave", [MIB, 0])
def test_a_disk_that_somebody_fills_during_the_download(small_site: Site, disk: Path, leave: int) -> None:
    """Without a free byte the agent goes on, too: it gives back what it holds itself."""
    small_site.installs("1.0.0")
    row = small_site.fleet.release("data", "2.1.0")[0]
    served = small_site.files.paths[f"/{row.target.sha256}"]
    served.drip_s = 0.0001
    deployment = small_site.deploy("2.1.0")
    part = small_site.agent.state_dir / "cache" / f"{row.target.sha256}.part"
    until(lambda: part.exists() and part.stat().st_size > 1_000, deadline_s=60)
    _fill(disk / "filler", leave=leave)
    served.drip_s = None
    small_site.agent.kill()  # the connection that drips is not waited for
    small_site.agent.start()
    outcome = until(lambda: small_site.outcome(deployment), deadline_s=60)
    assert outcome == ("failed", "no-space")
    small_site.runs("1.0.0")
    (disk / "filler").unlink()
    small_site.installs("1.1.0")


@needs_root
def test_a_disk_without_a_single_free_byte_stops_everything_but_the_heartbeat(small_site: Site, disk: Path) -> None:
    small_site.installs("1.0.0")
    _fill(disk / "filler", leave=0)
    small_site.deploy("1.1.0")
    until(lambda: "no-space" in small_site.state["why"] or small_site.state["why"] == "up to date", deadline_s=60)
    small_site.runs("1.0.0")
    assert small_site.state["version_data"] == "1.0.0"
    (disk / "filler").unlink()
    until(lambda: small_site.state.get("version_data") == "1.1.0", deadline_s=90)


@needs_root
def test_a_read_only_disk_stops_everything_but_the_heartbeat(site: Site) -> None:
    site.installs("1.0.0")
    with _read_only(site.agent.state_dir):
        site.deploy("1.1.0")
        site.runs("1.0.0")
        site.server.publish(site.fleet.command_topic, site.fleet.command("retry"), retain=False)
        until(lambda: "can not be written" in site.agent.log.read_text() or "read-only" in site.agent.log.read_text())
        status = json.loads(site.agent.command("status", "--json").stdout)
        assert status["installed"][0]["version"] == "1.0.0"
    until(lambda: site.state.get("version_data") == "1.1.0", deadline_s=90)


@needs_root
def test_slots_on_a_read_only_disk_are_a_coded_failure(site: Site) -> None:
    """The state can be written, so that the report can be made; where releases go can not."""
    site.installs("1.0.0")
    with _read_only(site.agent.state_dir / "slots"):
        deployment = site.deploy("1.1.0")
        assert until(lambda: site.outcome(deployment), deadline_s=60) == ("failed", "read-only")
        site.runs("1.0.0")
    site.installs("2.1.0")


@needs_compiler
def test_a_clock_in_1970_does_not_stop_an_update(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest verified document tells the time: nothing is believed to be older, and reports say it."""
    site.installs("1.0.0")
    site.agent.kill()
    shift_wall_clock(monkeypatch, tmp_path / "clock.so", by_s=60 - time.time())
    site.agent.start()
    site.installs("1.1.0")
    site.runs("1.1.0")
    assert site.server.reports(NODE)[-1]["time"] > "2026"
    assert site.state["time"] > 1_700_000_000


@needs_compiler
def test_a_clock_ten_years_ahead_installs_nothing_and_says_why(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.installs("1.0.0")
    site.agent.kill()
    with monkeypatch.context() as patch:
        shift_wall_clock(patch, tmp_path / "clock.so", by_s=3_650 * DAY_S)
        site.agent.start()
    site.deploy("1.1.0")
    attacked = until(lambda: [report["attack"] for report in site.server.reports(NODE) if report["attack"]])
    assert set(attacked) == {"expired"}
    site.runs("1.0.0")
    assert site.state["version_data"] == "1.0.0"
    site.agent.kill()
    site.agent.start()
    until(lambda: site.state.get("version_data") == "1.1.0", deadline_s=90)


@needs_root
def test_where_memory_runs_out_a_worker_goes_and_the_old_release_runs(site: Site) -> None:
    """The kernel kills the worker again and again; that says nothing against the manifest."""
    site.installs("1.0.0")
    memory = MemoryCgroup(f"hard-times-{os.getpid()}", 16)
    home = _memory_group_of(site.agent.pid)
    try:
        memory.processes.write_text(str(site.agent.pid))
        site.deploy("1.1.0")
        until(lambda: site.agent.log.read_text().count("no-memory") >= 4)
        site.runs("1.0.0")
        home.write_text(str(site.agent.pid))
        until(lambda: site.state.get("version_data") == "1.1.0", deadline_s=90)
        assert not any(report["attacks"] for report in site.server.reports(NODE))
    finally:
        home.write_text(str(site.agent.pid))
        memory.close()


def _memory_group_of(pid: int) -> Path:
    """Where a process is counted now, by the memory controller of either version."""
    rows = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    for _, controllers, path in rows:
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory", path.strip("/"), "cgroup.procs")
    return Path("/sys/fs/cgroup", rows[0][2].strip("/"), "cgroup.procs")


def _fill(path: Path, *, leave: int) -> None:
    """Take all of the disk's space but `leave` bytes."""
    with path.open("wb", buffering=0) as file:
        size = max(0, shutil.disk_usage(path.parent).free - leave)
        os.posix_fallocate(file.fileno(), 0, max(1, size - size % 4096))


@contextmanager
def _read_only(place: Path) -> Iterator[None]:
    """Nothing below `place` can be written, as after an error of the disk."""
    subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
