"""What every installer keeps, whatever its kind: the rules of device_agent/installers/port.py."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.core.plan import PlannedRelease
from device_agent.installers.registry import INSTALLERS, ORDER, device_of, installer_of, parts_of
from fleet_protocol.catalogue import KINDS
from fleet_protocol.errors import InstallError
from fleet_protocol.install import Driver, HealthCheck, Unit
from tests.fakes.artifacts import packed, planned_release, planned_target, put_in_cache, read_tree
from tests.fakes.debian import DebianRoot, artifact, make_deb, packages_in, release_of
from tests.fakes.elf import KERNEL, Module
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.kernel import FakeKernel
from tests.fakes.systemd import fake_systemd

RUN = b"#!/bin/sh\nexec sleep 1000\n"
UNIT = b"[Service]\nWorkingDirectory=@SLOT@\nExecStart=@SLOT@/bin/run\n[Install]\nWantedBy=multi-user.target\n"
BRINGS = Unit(name="app-main.service", file="app.service", scope="system", enable=True)
PROGRAMS = {"bin/run": RUN, "bin/ok": b"#!/bin/sh\n", "bin/sick": b"#!/bin/sh\nexit 1\n"}
MODULES = {
    version: {f"{KERNEL}/demo_drv.ko": Module(version=f"{version}.0", build=b"%d" % version).file()}
    for version in (1, 2, 3)
}
DRIVER = Driver(module="demo_drv", kernels=(KERNEL,), load=True)
ARTIFACTS = {
    version: packed(
        {**PROGRAMS, **module, "app.service": UNIT, "version": b"%d" % version}, dict.fromkeys(PROGRAMS, 0o755)
    )
    for version, module in MODULES.items()
}
DEBS = {version: make_deb("app", f"{version}.0") for version in (1, 2, 3)} if shutil.which("dpkg-deb") else {}
Kinds = tuple[str, ...]
SINGLE: list[Kinds] = [(kind,) for kind in INSTALLERS if kind != "package" or shutil.which("dpkg-deb")]
MIXED: list[Kinds] = [("service", "files"), ("files", "service"), ("service", "driver")]
"""`unit` is a service that brings a unit of its own."""
SCENES = [
    *(("supervisor", kinds) for kinds in SINGLE + MIXED),
    *(("systemd", kinds) for kinds in (("service",), ("unit",), ("unit", "files"), ("unit", "driver"))),
]
SERVICES = [("supervisor", ("service",)), ("systemd", ("service",)), ("systemd", ("unit",))]
MANAGERS = [("supervisor", ("service",)), ("systemd", ("service",))]
KEEPING = [
    *(("supervisor", kinds) for kinds in (("driver",), ("service", "driver"))),
    *(("systemd", kinds) for kinds in (("unit",), ("unit", "driver"))),
]
"""What keeps copies of the system's files."""
Scene = tuple[str, Kinds]


def on(scenes: list[Scene]) -> pytest.MarkDecorator:
    """Only these of the scenes."""
    return pytest.mark.parametrize("scene", scenes, indirect=True, ids=_name)


def _name(scene: Scene) -> str:
    return f"{scene[0]}:{'+'.join(scene[1])}"


@pytest.fixture(params=SCENES, ids=_name)
def scene(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def kinds(scene: Scene) -> Kinds:
    return scene[1]


@pytest.fixture
def device(tmp_path: Path, scene: Scene) -> Iterator[DeviceUnderTest]:
    """Below a system root with a systemd and a dpkg; what the kinds are run by is in the scene."""
    DebianRoot(tmp_path / "root")
    with (
        fake_systemd(tmp_path / "root") as systemd,
        device_under_test(tmp_path, service_manager=scene[0], system_root=systemd.root) as found,
    ):
        found.kernel = FakeKernel(systemd.root)
        yield found


def extra(version: int) -> Any:
    return packed({"extra": b"%d" % version, **MODULES[version]})


def release(kinds: Kinds, version: int, check: HealthCheck | None = None) -> PlannedRelease:
    """One part for each kind; where there are two, the service holds the program."""
    if kinds == ("package",):
        return release_of(DEBS[version], version=version, check=check, tree=tree_of(version))
    several = len(kinds) > 1
    targets = []
    for kind in kinds:
        runs = kind in ("service", "unit")
        artifact = ARTIFACTS[version] if runs or not several else extra(version)
        targets.append(
            planned_target(
                artifact,
                kind="service" if kind == "unit" else kind,
                run=("bin/run",) if kind == "service" else (),
                check=check if runs or not several else None,
                path=f"app/1/{kind}",
                part=kind if several else "",
                unit=BRINGS if kind == "unit" else None,
            )
        )
    targets = [
        replace(target, install=replace(target.install, driver=DRIVER)) if target.kind == "driver" else target
        for target in targets
    ]
    found: PlannedRelease = planned_release(*targets, version=f"{version}.0", counter=version)
    return found


def tree_of(version: int) -> dict[str, bytes]:
    """What an artifact of packages holds beside them."""
    return {**PROGRAMS, "version": b"%d" % version}


def stage(device: DeviceUnderTest, wanted: PlannedRelease, slot: Any, active: Any) -> str:
    put_in_cache(device.state_dir, *ARTIFACTS.values(), *(extra(version) for version in (1, 2, 3)))
    put_in_cache(device.state_dir, *(artifact(deb, tree=tree_of(version)) for version, deb in DEBS.items()))
    return str(device.run("stage", release=wanted, slot=slot, active=active)["tree"])


def installed(
    device: DeviceUnderTest, wanted: PlannedRelease, slot: Any, previous: Any, before: PlannedRelease | None = None
) -> str:
    tree = stage(device, wanted, slot, previous)
    device.run("activate", release=wanted, slot=slot, previous=previous, before=before, tree=tree)
    return tree


def runs(device: DeviceUnderTest, kinds: Kinds, slot: Any, version: int | None) -> None:
    """The slot is active, holds the version, and its service runs out of it."""
    assert device.current() == slot
    if kinds == ("package",):
        installed = packages_in(device.settings.system_root)
        assert installed == ({} if version is None else {"app": f"{version}.0"})
    assert device.kernel.loaded().get("demo_drv") == (f"{version}.0" if version and "driver" in kinds else None)
    statuses = device.services.list()
    if version is None:
        assert statuses == []
        return
    part = next(kind for kind in kinds if kind in ("service", "unit")) if len(kinds) > 1 else "."
    home = device.slot(slot) / part
    assert (home / "version").read_bytes() == b"%d" % version
    if set(kinds) & {"service", "unit"}:
        (status,) = statuses
        assert (status.running, status.version) == (True, f"{version}.0")
        assert str(Path(f"/proc/{status.pid}/cwd").readlink()) == str(home)
    else:
        assert statuses == []


def test_every_operation_may_run_twice(device: DeviceUnderTest, kinds: Kinds) -> None:
    """Rule 1, and invariant D7."""
    first, second = release(kinds, 1), release(kinds, 2)
    trees = {stage(device, first, "a", None) for _ in range(2)}
    assert len(trees) == 1
    tree = trees.pop()
    for _ in range(2):
        device.run("activate", release=first, slot="a", previous=None, tree=tree)
        runs(device, kinds, "a", 1)
        assert device.run("check", release=first, slot="a") == {"code": None, "detail": ""}
    for _ in range(2):
        device.run("commit", release=first, slot="a")
    installed(device, second, "b", "a")
    runs(device, kinds, "b", 2)
    for _ in range(2):
        device.run("revert", package="app", slot="b", previous="a", release=first, tree=tree)
        runs(device, kinds, "a", 1)
    for _ in range(2):
        device.run("discard", package="app", slot="b")
        assert not device.slot("b").exists()
    runs(device, kinds, "a", 1)


@on(SERVICES)
def test_activating_again_leaves_the_running_process_alone(device: DeviceUnderTest, kinds: Kinds) -> None:
    wanted = release(kinds, 1)
    tree = installed(device, wanted, "a", None)
    (before,) = device.services.list()
    device.run("activate", release=wanted, slot="a", previous=None, tree=tree)
    assert [status.pid for status in device.services.list()] == [before.pid]


def test_staging_activates_nothing_and_touches_nothing_active(device: DeviceUnderTest, kinds: Kinds) -> None:
    """Rule 2 and attack B12: all is staged and verified before any of it is active."""
    installed(device, release(kinds, 1), "a", None)
    before = read_tree(device.slot("a")), [status.pid for status in device.services.list()]
    stage(device, release(kinds, 2), "b", "a")
    after = read_tree(device.slot("a")), [status.pid for status in device.services.list()]
    assert after == before
    runs(device, kinds, "a", 1)


@on(MANAGERS)
def test_one_part_that_can_not_be_staged_keeps_all_from_becoming_active(device: DeviceUnderTest) -> None:
    """Rule 2 and attack B12."""
    kinds = ("files", "service")
    installed(device, release(kinds, 1), "a", None)
    wanted = release(kinds, 2)
    put_in_cache(device.state_dir, *ARTIFACTS.values())
    (device.state_dir / "cache" / wanted.targets[1].sha256).unlink(missing_ok=True)
    assert device.refused("stage", release=wanted, slot="b", active="a").code == "io"
    assert not device.slot("b").exists()
    runs(device, kinds, "a", 1)


def test_a_first_installation_that_is_reverted_leaves_nothing(device: DeviceUnderTest, kinds: Kinds) -> None:
    installed(device, release(kinds, 1), "a", None)
    for _ in range(2):
        device.run("revert", package="app", slot="a", previous=None, release=None, tree=None)
        runs(device, kinds, None, None)
    device.run("discard", package="app", slot="a")
    assert not device.slot("a").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [("service", "files"), ("files", "service"), ("service", "service"), ("driver", "service"), ("files", "driver")],
)
@on(MANAGERS)
def test_a_package_may_change_its_kind_and_go_back(device: DeviceUnderTest, before: str, after: str) -> None:
    """Rule 3: the way back is known from the disk."""
    tree = installed(device, release((before,), 1), "a", None)
    device.run("commit", release=release((before,), 1), slot="a")
    installed(device, release((after,), 2), "b", "a", before=release((before,), 1))
    runs(device, (after,), "b", 2)
    device.run("revert", package="app", slot="b", previous="a", release=release((before,), 1), tree=tree)
    runs(device, (before,), "a", 1)


def test_a_revert_before_anything_happened_changes_nothing(device: DeviceUnderTest, kinds: Kinds) -> None:
    first = release(kinds, 1)
    tree = installed(device, first, "a", None)
    device.run("commit", release=first, slot="a")
    stage(device, release(kinds, 2), "b", "a")
    device.run("revert", package="app", slot="b", previous="a", release=first, tree=tree)
    runs(device, kinds, "a", 1)


def test_a_lying_caller_can_not_have_the_active_slot_written(device: DeviceUnderTest, kinds: Kinds) -> None:
    installed(device, release(kinds, 1), "a", None)
    before = read_tree(device.slot("a"))
    for active in ("b", None, "a"):
        assert device.refused("stage", release=release(kinds, 2), slot="a", active=active).code == "occupied"
    assert device.refused("discard", package="app", slot="a").code == "occupied"
    assert read_tree(device.slot("a")) == before
    runs(device, kinds, "a", 1)


def test_what_is_not_whole_is_not_activated(device: DeviceUnderTest, kinds: Kinds) -> None:
    """Attack B9."""
    installed(device, release(kinds, 1), "a", None)
    tree = stage(device, release(kinds, 2), "b", "a")
    (device.slot("b") / "version").write_bytes(b"9")
    found = device.refused("activate", release=release(kinds, 2), slot="b", previous="a", tree=tree)
    assert found.code == "altered"
    runs(device, kinds, "a", 1)


def test_what_is_not_whole_is_not_gone_back_to(device: DeviceUnderTest, kinds: Kinds) -> None:
    """Attack B11: stays where it is."""
    first, second = release(kinds, 1), release(kinds, 2)
    tree = installed(device, first, "a", None)
    installed(device, second, "b", "a")
    (device.slot("a") / "version").write_bytes(b"9")
    found = device.refused("revert", package="app", slot="b", previous="a", leaving=second, release=first, tree=tree)
    assert found.code == "altered"
    runs(device, kinds, "b", 2)
    found = device.refused("revert", package="app", slot="b", previous="a", release=None, tree=None)
    assert found.code == "no-fallback"
    runs(device, kinds, "b", 2)


@on(KEEPING)
@pytest.mark.parametrize("killed", [False, True])
def test_what_was_kept_and_is_not_whole_is_found_before_anything_is_touched(
    device: DeviceUnderTest, kinds: Kinds, killed: bool
) -> None:
    """Attack B11, on the copies. Where an earlier try has stopped what runs, it runs again."""
    first, second = release(kinds, 1), release(kinds, 2)
    tree = installed(device, first, "a", None)
    installed(device, second, "b", "a", first)
    back = {"package": "app", "slot": "b", "previous": "a", "leaving": second, "release": first, "tree": tree}
    if killed:
        assert device.work("revert", crash_at="revert.before_switch", **back) is None
    spoiled = [copy.write_bytes(b"rotten") for copy in (device.state_dir / "backup").rglob("[0-9]*")]
    assert spoiled
    assert device.refused("revert", **back).code == "altered"
    runs(device, kinds, "b", 2)


def test_the_way_back_has_the_room_of_the_downloads(device: DeviceUnderTest, kinds: Kinds) -> None:
    first, second = release(kinds, 1), release(kinds, 2)
    tree = installed(device, first, "a", None)
    installed(device, second, "b", "a", first)
    cache = device.state_dir / "cache"
    assert any(path.is_file() for path in cache.iterdir())
    device.run("revert", package="app", slot="b", previous="a", leaving=second, release=first, tree=tree)
    runs(device, kinds, "a", 1)
    assert not any(path.is_file() for path in cache.iterdir())


def test_what_another_attempt_has_left_is_no_way_back(device: DeviceUnderTest, kinds: Kinds) -> None:
    """Its commit was lost: the way back from the next attempt ends where that one began."""
    first, second, third = (release(kinds, version) for version in (1, 2, 3))
    installed(device, first, "a", None)
    device.run("commit", release=first, slot="a")
    tree = installed(device, second, "b", "a", first)
    installed(device, third, "a", "b", second)
    device.run("revert", package="app", slot="a", previous="b", leaving=third, release=second, tree=tree)
    runs(device, kinds, "b", 2)


def test_what_another_attempt_has_left_is_not_undone_by_one_that_changed_nothing(
    device: DeviceUnderTest, kinds: Kinds
) -> None:
    """Its commit was lost, and the next attempt dies before its first change."""
    first, second, third = (release(kinds, version) for version in (1, 2, 3))
    installed(device, first, "a", None)
    device.run("commit", release=first, slot="a")
    tree = installed(device, second, "b", "a", first)
    stage(device, third, "a", "b")
    device.run("revert", package="app", slot="a", previous="b", leaving=third, release=second, tree=tree)
    runs(device, kinds, "b", 2)


@on(MANAGERS[:1])
@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(INSTALLERS)))
def test_kinds_without_an_installer_are_unsupported(device: DeviceUnderTest, kind: str) -> None:
    """Attack A28."""
    target = planned_target(ARTIFACTS[1], kind=kind)  # type: ignore[arg-type]
    wanted = planned_release(target)
    for op in ("stage", "activate", "check", "commit"):
        args = {"release": wanted, "slot": "a"}
        if op == "check":
            (device.state_dir / "slots/app").mkdir(parents=True)
            (device.state_dir / "slots/app/current").symlink_to("a")
        extra_args = {"stage": {"active": None}, "activate": {"previous": None, "tree": "0" * 64}}.get(op, {})
        assert device.refused(op, **args, **extra_args).code == "unsupported"
    assert not device.slot("a").exists()


def test_a_check_of_a_slot_that_is_not_active_is_not_well(device: DeviceUnderTest, kinds: Kinds) -> None:
    installed(device, release(kinds, 1), "a", None)
    assert device.run("check", release=release(kinds, 2), slot="b")["code"] == "unhealthy"


def test_the_signed_check_decides(device: DeviceUnderTest, kinds: Kinds) -> None:
    for program, code in (("bin/ok", None), ("bin/sick", "unhealthy"), ("bin/none", "unhealthy")):
        check = HealthCheck(kind="exec", target=program, interval_s=1, timeout_s=10, failures=1)
        wanted = release(kinds, 1, check)
        if device.current() is None:
            installed(device, wanted, "a", None)
        assert device.run("check", release=wanted, slot="a")["code"] == code


@on(MANAGERS)
def test_a_release_may_run_two_programs(device: DeviceUnderTest) -> None:
    targets = [
        planned_target(ARTIFACTS[1], kind="service", run=("bin/run",), part=part, path=f"app/1/{part}")
        for part in ("web", "worker")
    ]
    wanted = planned_release(*targets)
    installed(device, wanted, "a", None)
    assert [(status.name, status.running) for status in device.services.list()] == [
        ("app-web", True),
        ("app-worker", True),
    ]
    device.run("revert", package="app", slot="a", previous=None, release=None, tree=None)
    assert device.services.list() == []


@on(MANAGERS)
def test_what_others_need_is_activated_first(device: DeviceUnderTest) -> None:
    """Rule 2: by kind, whatever the order of the targets."""
    for kinds in MIXED:
        parts = parts_of(release(kinds, 1), "a")
        assert tuple(part.target.kind for part in parts) == tuple(sorted(kinds, key=ORDER.index))
        made = [installer_of(part, device_of(device.settings)).kind for part in parts]
        assert tuple(made) == tuple(sorted(kinds, key=ORDER.index))
    assert set(ORDER) == set(KINDS)


@on(MANAGERS)
@pytest.mark.parametrize(
    ("run", "code"),
    [
        (("bin/no-such",), "start"),
        (("../bin/run",), "start"),
        (("bin/../../../../bin/sh",), "start"),
        (("version",), "start"),
        (("/no/such/interpreter", "x"), "start"),
        (("${NOT_SET}",), "start"),
        (("bin/run", "${NOT_SET"), "start"),
        ((), "unsupported"),
    ],
)
def test_what_can_not_be_run_is_refused_before_the_switch(
    device: DeviceUnderTest, run: tuple[str, ...], code: str
) -> None:
    """Attack B13: a program is in the signed release, or an absolute path of the device."""
    installed(device, release(("service",), 1), "a", None)
    wanted = planned_release(planned_target(ARTIFACTS[2], kind="service", run=run), version="2", counter=2)
    put_in_cache(device.state_dir, *ARTIFACTS.values())
    found = device.refused("stage", release=wanted, slot="b", active="a")
    assert isinstance(found, InstallError)
    assert found.code == code
    assert not device.slot("b").exists()
    runs(device, ("service",), "a", 1)
