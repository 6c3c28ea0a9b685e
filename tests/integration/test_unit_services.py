"""Services as systemd units, on real processes under a systemd of the test's own (`tests/fakes/systemd.py`)."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.adapters.services import unit_view
from device_agent.core.plan import PlannedRelease
from device_agent.installers.port import PartId
from device_agent.installers.registry import device_of
from device_agent.installers.unit import UnitInstaller
from device_agent.probes.probes import check_service
from device_agent.settings import Thresholds
from device_agent.systemd.systemctl import UnitState
from device_agent.systemd.unit_record import UnitPlace
from fleet_protocol.errors import InstallError
from fleet_protocol.install import Unit
from tests.fakes.artifacts import packed, planned_release, planned_target, put_in_cache
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.systemd import FakeSystemd, fake_systemd
from tests.fakes.waiting import until

TEXT = "[Service]\nExecStart=@SLOT@/bin/run\nWorkingDirectory=@SLOT@\n[Install]\nWantedBy=multi-user.target\n"
RUN = b"#!/bin/sh\necho started\nexec sleep 1000\n"
UNIT = Unit(name="web.service", file="web.service", scope="system", enable=True)
ETC = "etc/systemd/system"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeSystemd]:
    with fake_systemd(tmp_path / "root") as found:
        yield found


@pytest.fixture
def device(tmp_path: Path, systemd: FakeSystemd) -> Iterator[DeviceUnderTest]:
    with device_under_test(tmp_path, service_manager="systemd", system_root=systemd.root) as found:
        yield found


def release(
    device: DeviceUnderTest,
    version: int = 1,
    *,
    text: str = TEXT,
    program: bytes = RUN,
    package: str = "web",
    **install: Any,
) -> PlannedRelease:
    tree = {"bin/run": program, "web.service": text.encode(), "version": b"%d" % version}
    artifact = packed(tree, {"bin/run": 0o755})
    put_in_cache(device.state_dir, artifact)
    target = planned_target(artifact, kind="service", **({"unit": UNIT} | install))
    found: PlannedRelease = planned_release(target, package=package, version=f"{version}.0", counter=version)
    return found


def install(device: DeviceUnderTest, wanted: PlannedRelease, slot: Any = "a", previous: Any = None) -> str:
    tree = str(device.run("stage", release=wanted, slot=slot, active=previous)["tree"])
    device.run("activate", release=wanted, slot=slot, previous=previous, tree=tree)
    return tree


def with_manager(device: DeviceUnderTest, manager: Any) -> DeviceUnderTest:
    """The same device, whose owner has changed this setting."""
    return replace(device, settings=replace(device.settings, service_manager=manager))


def test_a_service_may_come_under_systemd_and_go_back(device: DeviceUnderTest, systemd: FakeSystemd) -> None:
    before = with_manager(device, "supervisor")
    first = release(device, run=["bin/run"])
    tree = install(before, first)
    before.run("commit", release=first, slot="a")
    assert [view.name for view in device.supervisor.list()] == ["web"]
    install(device, release(device, 2), "b", "a")
    assert device.supervisor.list() == ()
    assert systemd.show("web.service", "ActiveState") == "active"
    device.run("revert", package="web", slot="b", previous="a", release=first, tree=tree)
    (status,) = device.supervisor.list()
    assert (status.running, status.version) == (True, "1.0")
    assert systemd.files() == {}


def test_a_service_may_leave_systemd_and_come_back(device: DeviceUnderTest, systemd: FakeSystemd) -> None:
    after = with_manager(device, "supervisor")
    first = release(device)
    tree = install(device, first)
    device.run("commit", release=first, slot="a")
    files = systemd.files()
    install(after, release(device, 2, run=["bin/run"]), "b", "a")
    assert (systemd.files(), systemd.pids()) == ({}, [])
    assert [status.running for status in device.supervisor.list()] == [True]
    after.run("revert", package="web", slot="b", previous="a", release=first, tree=tree)
    assert device.supervisor.list() == ()
    assert systemd.files() == files
    assert [(view.version, view.running) for view in device.services.list()] == [("1.0", True)]


def test_only_a_unit_can_not_run_without_systemd(device: DeviceUnderTest) -> None:
    found = with_manager(device, "supervisor").refused("stage", release=release(device), slot="a", active=None)
    assert found.code == "unsupported"


def test_a_masked_unit_is_refused_before_anything_changes(device: DeviceUnderTest, systemd: FakeSystemd) -> None:
    systemd.mask("web.service")
    before = systemd.files()
    assert device.refused("stage", release=release(device), slot="a", active=None).code == "masked"
    assert systemd.files() == before
    assert list((device.state_dir / "services").rglob("*")) == []


def test_a_unit_of_somebody_else_is_not_taken(device: DeviceUnderTest, systemd: FakeSystemd) -> None:
    """A program that brings no unit must not hide one of the system, nor a package one of another package."""
    systemd.write("usr/lib/systemd/system/cron.service", "[Service]\nExecStart=/bin/sleep 1000\n")
    program = release(device, package="cron", unit=None, run=["bin/run"])
    assert device.refused("stage", release=program, slot="a", active=None).code == "occupied"
    install(device, release(device))
    assert device.refused("stage", release=release(device, package="other"), slot="a", active=None).code == "occupied"


@pytest.mark.parametrize(
    ("text", "install_more", "names"),
    [
        (TEXT.replace("/bin/run", "/bin/none"), {}, "bin/none"),
        (TEXT.replace("[Service]", "[Service]\nEnvironment=X=@NOT_SET@"), {}, "NOT_SET"),
        (TEXT + "Also=other.service\n", {}, "Also="),
        (TEXT, {"unit": replace(UNIT, file="none.service")}, "none.service"),
        (TEXT, {"unit": replace(UNIT, scope="user")}, "unit_user"),
    ],
)
def test_what_could_never_run_is_refused_before_the_switch(
    device: DeviceUnderTest, text: str, install_more: dict[str, Any], names: str
) -> None:
    if "unit_user" in names and os.geteuid() != 0:
        pytest.skip("an agent that is not root has its own user's units")
    found = device.refused("stage", release=release(device, text=text, **install_more), slot="a", active=None)
    assert isinstance(found, InstallError)
    assert found.code in ("start", "unsupported") and names in found.detail


def test_tokens_are_the_owners_variables(tmp_path: Path, systemd: FakeSystemd) -> None:
    text = TEXT.replace("[Service]", "[Service]\nEnvironment=PORT=@PORT@")
    with device_under_test(
        tmp_path, service_manager="systemd", system_root=systemd.root, variables={"PORT": "9000"}
    ) as device:
        install(device, release(device, text=text))
        unit = (systemd.units / "web.service").read_text()
        assert "Environment=PORT=9000\n" in unit
        assert f"ExecStart={device.state_dir}/slots/web/current/bin/run\n" in unit


def test_its_owner_decides_whether_it_is_enabled(device: DeviceUnderTest, systemd: FakeSystemd) -> None:
    link = systemd.units / "multi-user.target.wants/web.service"
    install(device, release(device))
    assert link.is_symlink()
    link.unlink()
    install(device, release(device, 2, text=TEXT.replace("multi-user", "basic")), "b", "a")
    assert systemd.show("web.service", "UnitFileState") == "disabled"
    link.symlink_to("/etc/systemd/system/web.service")
    own = systemd.units / "timers.target.wants/web.service"
    own.parent.mkdir()
    own.symlink_to("/etc/systemd/system/web.service")
    for version, target in ((3, "basic"), (4, "network")):
        slots = ("a", "b") if version == 3 else ("b", "a")
        install(device, release(device, version, text=TEXT.replace("multi-user", target)), *slots)
    links = sorted(str(path.parent.name) for path in systemd.units.glob("*.wants/*"))
    assert links == ["multi-user.target.wants", "network.target.wants", "timers.target.wants"]


def test_a_drop_in_that_its_owner_removed_still_keeps_it_quiet(device: DeviceUnderTest, systemd: FakeSystemd) -> None:
    install(device, release(device))
    (systemd.units / "web.service.d/50-fairlead.conf").unlink()
    UnitInstaller(device_of(device.settings)).quiet(PartId(package="web", part="", kind="service"))
    systemd.cut_power()
    systemd.boot()
    assert systemd.pids() == []


def test_a_record_that_is_torn_is_told(device: DeviceUnderTest) -> None:
    place = UnitPlace(device.state_dir, "web")
    install(device, release(device))
    (device.state_dir / "services/web/unit.json").write_text("{")
    with pytest.raises(InstallError) as torn:
        place.record()
    assert torn.value.code == "io"


def test_a_crash_is_told_with_its_last_words(device: DeviceUnderTest, systemd: FakeSystemd) -> None:
    text = TEXT.replace("[Service]", "[Service]\nRestart=always")
    wanted = release(device, text=text, program=b"#!/bin/sh\necho out of luck\n[ -e /nowhere ]\n")
    install(device, wanted)
    until(lambda: systemd.show("web.service", "NRestarts") != "0")
    verdict = device.run("check", release=wanted, slot="a")
    assert verdict["code"] == "crashed"
    assert "out of luck" in verdict["detail"]


def test_a_unit_that_was_stopped_by_hand_is_not_well(device: DeviceUnderTest, systemd: FakeSystemd) -> None:
    wanted = release(device)
    install(device, wanted)
    systemd.ctl("stop", "web.service")
    assert device.run("check", release=wanted, slot="a")["code"] == "unhealthy"


def test_the_resident_sees_both_kinds(device: DeviceUnderTest, systemd: FakeSystemd) -> None:
    noisy = b"#!/bin/sh\necho fine\nread line <%b\necho ERROR one\necho '<2>two'\nexec sleep 1000\n"
    pipe = device.root / "pipe"
    os.mkfifo(pipe)
    install(device, release(device, program=noisy % str(pipe).encode()))
    supervised = with_manager(device, "supervisor")
    install(supervised, release(device, package="plain", unit=None, run=["bin/run"]))
    services = device.services
    assert [(view.name, view.running, view.version) for view in services.list()] == [
        ("plain", True, "1.0"),
        ("web", True, "1.0"),
    ]
    until(lambda: set(services.logs("web", 5)) == {"Started web.service.", "fine"})
    assert services.log_errors() == {}
    pipe.write_text("go\n")
    until(lambda: "two" in services.logs("web", 5))
    errors = services.log_errors()
    assert errors["web"] > 0
    assert errors["plain"] == 0
    assert services.log_errors()["web"] == 0


def test_stopping_with_the_agent_leaves_units_alone(device: DeviceUnderTest, systemd: FakeSystemd) -> None:
    install(device, release(device))
    services = device.services
    services.start()
    services.stop(services_too=True)
    assert len(systemd.pids()) == 1


@pytest.mark.parametrize(
    ("active", "enabled", "quiet", "verdict"),
    [
        ("active", "enabled", False, "ok"),
        ("inactive", "enabled", False, "critical"),
        ("inactive", "disabled", False, "ok"),
        ("inactive", "enabled", True, "ok"),
        ("failed", "disabled", False, "critical"),
        ("activating", "disabled", False, "critical"),
    ],
)
def test_a_unit_that_ought_to_run_and_does_not_is_critical(
    active: str, enabled: str, quiet: bool, verdict: str
) -> None:
    state = UnitState({"LoadState": "loaded", "ActiveState": active, "UnitFileState": enabled, "SubState": ""})
    view = unit_view("web", "1.0", state, quiet=quiet)
    assert check_service(view, Thresholds()).verdict == verdict


@pytest.mark.parametrize(("manager", "booted", "expected"), [("auto", False, False), ("supervisor", True, False)])
def test_systemd_is_used_where_it_runs(
    tmp_path: Path, systemd: FakeSystemd, manager: str, booted: bool, expected: bool
) -> None:
    with device_under_test(tmp_path, service_manager=manager, system_root=systemd.root) as device:
        if not booted:
            (systemd.root / "run/systemd/system").rmdir()
        assert device_of(device.settings).services_by_systemd is expected
        (systemd.root / "run/systemd/system").mkdir(exist_ok=True)
        is_root = os.geteuid() == 0
        assert device_of(with_manager(device, "auto").settings).services_by_systemd is is_root
