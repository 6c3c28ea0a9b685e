"""The driver installer by its rules, on a kernel that is a directory: device_agent/installers/driver.py."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.core.plan import PlannedRelease
from device_agent.installers import driver, kernel, module_tree
from fleet_protocol.install import Driver
from fleet_protocol.module_file import MACHINES, Machine
from tests.fakes.artifacts import Artifact, packed, planned_release, planned_target, put_in_cache
from tests.fakes.elf import KERNEL, Module
from tests.fakes.install_driver import DeviceUnderTest, device_under_test
from tests.fakes.kernel import OTHER, FakeKernel

ONE, TWO = Module(version="1.0", build=b"one"), Module(version="2.0", build=b"two")
BAN = "etc/modprobe.d/fairlead-app.conf"
LIST = "etc/modules-load.d/fairlead-app.conf"
PLACE = f"lib/modules/{KERNEL}/updates/demo_drv.ko"


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceUnderTest]:
    monkeypatch.setattr(kernel, "_PATIENCE_S", 0.0)
    fake = FakeKernel(tmp_path / "system")
    with device_under_test(tmp_path, system_root=fake.root) as found:
        found.kernel, found.shelf = fake, []
        yield found


def release(
    device: DeviceUnderTest,
    *modules: Module,
    version: int = 1,
    load: bool = True,
    kernels: Sequence[str] = (KERNEL,),
    parts: Sequence[str] = ("",),
    files: Mapping[str, bytes] | None = None,
    kinds: Sequence[Any] = (),
) -> PlannedRelease:
    """One driver for each module, in a part of its own where there are several; its artifacts are at hand."""
    targets = []
    for part, module in zip(parts, modules, strict=True):
        tree = {f"{kernel}/{module.name}.ko": replace(module, kernel=kernel).file() for kernel in kernels}
        artifact = packed(tree if files is None else files)
        made = Driver(module=module.name, kernels=tuple(kernels), load=load)
        target = planned_target(artifact, kind="driver", part=part, path=f"app/{version}/{part or 'x'}")
        targets.append(replace(target, install=replace(target.install, driver=made)))
        device.shelf.append(artifact)
    for kind in kinds:
        artifact = packed({"bin/run": b"#!/bin/sh\nexec sleep 100\n"}, {"bin/run": 0o755})
        targets.append(planned_target(artifact, kind=kind, part="more", path="app/1/more", run=("bin/run",)))
        device.shelf.append(artifact)
    found: PlannedRelease = planned_release(*targets, version=f"{version}.0", counter=version)
    return found


def refusal(device: DeviceUnderTest, wanted: PlannedRelease, **how: Any) -> tuple[str, str]:
    """Code and detail with which the release is not even staged; nothing has changed."""
    put_in_cache(device.state_dir, *device.shelf)
    device.kernel.calls()
    before = device.kernel.system(), device.kernel.loaded()
    found = device.refused("stage", release=wanted, slot="b", active=device.current(), **how)
    assert (device.kernel.system(), device.kernel.loaded(), device.kernel.calls()) == (*before, [])
    assert not device.slot("b").exists()
    return found.code, found.detail


def stage(device: DeviceUnderTest, wanted: PlannedRelease, slot: Any, **how: Any) -> str:
    """Staged into a slot; returns the tree."""
    put_in_cache(device.state_dir, *device.shelf)
    return str(device.run("stage", release=wanted, slot=slot, active=device.current(), **how)["tree"])


def activate(device: DeviceUnderTest, wanted: PlannedRelease, slot: Any, before: PlannedRelease | None = None) -> str:
    """Staged and activated; returns the tree."""
    previous = device.current()
    tree = stage(device, wanted, slot)
    device.run("activate", release=wanted, slot=slot, previous=previous, before=before, tree=tree)
    return tree


def install(device: DeviceUnderTest, wanted: PlannedRelease, slot: Any, before: PlannedRelease | None = None) -> str:
    """Activated and committed."""
    tree = activate(device, wanted, slot, before)
    assert device.run("check", release=wanted, slot=slot)["code"] is None
    device.run("commit", release=wanted, slot=slot)
    return tree


def verdict(device: DeviceUnderTest, wanted: PlannedRelease, slot: Any = "a") -> tuple[str | None, str]:
    found = device.run("check", release=wanted, slot=slot)
    return found["code"], found["detail"]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (replace(ONE, kernel="5.4.0"), "is built for kernel 5.4.0"),
        (replace(ONE, says={"name": "other"}), "is the module other"),
        (replace(ONE, machine=Machine(8, 32, "big")), "machine of kind 8"),
        (replace(ONE, flags="SMP preempt mod_unload"), "vermagic"),
        (replace(ONE, depends=("no-such", "ext4", "own")), "needs no_such"),
        (replace(ONE, kind=2), "not a relocatable object"),
        (replace(ONE, version=None, srcversion=None, build=None), "to know it by"),
    ],
)
def test_what_the_kernel_would_refuse_is_refused_before_anything_stops(
    device: DeviceUnderTest, module: Module, words: str
) -> None:
    wanted = release(device, ONE, files={f"{KERNEL}/demo_drv.ko": module.file()})
    code, detail = refusal(device, wanted)
    assert code == "kernel"
    assert words in detail


@pytest.mark.parametrize("files", [{f"{OTHER}/demo_drv.ko": ONE.file()}, {f"{KERNEL}/other.ko": ONE.file()}])
def test_a_release_without_the_module_is_refused(device: DeviceUnderTest, files: dict[str, bytes]) -> None:
    assert refusal(device, release(device, ONE, files=files))[0] == "kernel"


def test_a_driver_for_other_kernels_only_is_refused(device: DeviceUnderTest) -> None:
    code, detail = refusal(device, release(device, ONE, kernels=(OTHER,)))
    assert (code, detail) == ("kernel", f"demo_drv is not built for {KERNEL}")


def test_a_file_for_another_kernel_of_the_device_must_be_right_too(device: DeviceUnderTest) -> None:
    files = {f"{KERNEL}/demo_drv.ko": ONE.file(), f"{OTHER}/demo_drv.ko": ONE.file()}
    code, detail = refusal(device, release(device, ONE, kernels=(KERNEL, OTHER), files=files))
    assert code == "kernel"
    assert detail == f"{OTHER}/demo_drv.ko is built for kernel {KERNEL}"


def test_a_release_of_kind_driver_without_a_driver_is_unsupported(device: DeviceUnderTest) -> None:
    wanted = release(device, ONE)
    bare = replace(wanted.targets[0], install=replace(wanted.targets[0].install, driver=None))
    assert refusal(device, replace(wanted, targets=(bare,)))[0] == "unsupported"


def test_a_module_that_is_built_into_the_kernel_can_not_be_replaced(device: DeviceUnderTest) -> None:
    code, detail = refusal(device, release(device, replace(ONE, name="ext4")))
    assert code == "kernel"
    assert "built into" in detail


def test_a_device_without_the_modules_of_its_own_kernel_is_refused(device: DeviceUnderTest) -> None:
    (device.kernel.root / "proc/sys/kernel/osrelease").write_text("7.0.0\n")
    wanted = release(device, ONE, kernels=("7.0.0",))
    assert refusal(device, wanted) == ("kernel", "this device has no /lib/modules/7.0.0")


def test_where_nothing_can_be_put_nothing_is_begun(device: DeviceUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_tree.os, "access", lambda path, mode: False)
    assert refusal(device, release(device, ONE))[0] == "read-only"


def test_without_a_module_to_compare_with_the_kernel_itself_decides(device: DeviceUnderTest) -> None:
    (device.kernel.tree() / "kernel/own.ko").write_bytes(b"damaged")
    install(device, release(device, replace(ONE, flags="other")), "a")
    assert device.kernel.loaded() == {"demo_drv": "1.0"}


def test_another_machine_is_refused_also_where_there_is_nothing_to_compare_with(device: DeviceUnderTest) -> None:
    (device.kernel.tree() / "kernel/own.ko").unlink()
    other = next(machine for machine in MACHINES.values() if machine != ONE.machine)
    assert "machine" in refusal(device, release(device, replace(ONE, machine=other)))[1]


@pytest.mark.parametrize("signed", [True, False])
def test_a_kernel_that_wants_signatures_gets_only_signed_modules(device: DeviceUnderTest, signed: bool) -> None:
    place = device.kernel.root / "sys/module/module/parameters"
    place.mkdir(parents=True)
    (place / "sig_enforce").write_text("Y\n")
    wanted = release(device, replace(ONE, signed=signed))
    if signed:
        install(device, wanted, "a")
    else:
        code, detail = refusal(device, wanted)
        assert code == "kernel"
        assert "not signed" in detail


def test_what_could_never_be_unloaded_needs_the_operator_to_accept_that(device: DeviceUnderTest) -> None:
    wanted = release(device, replace(ONE, functions=("init_module",)))
    assert refusal(device, wanted)[0] == "no-way-back"
    stage(device, wanted, "a", irreversible=True)


def test_a_module_that_others_use_is_not_replaced(device: DeviceUnderTest) -> None:
    first = release(device, ONE)
    install(device, first, "a")
    device.kernel.install(Module(name="theirs", depends=("demo_drv",)), "kernel/theirs.ko")
    device.kernel.machine().modprobe("theirs")
    assert refusal(device, release(device, TWO, version=2)) == ("in-use", "demo_drv is used by theirs")
    stage(device, first, "b")  # the same module need not be replaced


def test_a_module_that_a_process_uses_is_not_replaced_unless_the_release_has_services(device: DeviceUnderTest) -> None:
    install(device, release(device, ONE), "a")
    device.kernel.use("demo_drv", 1)
    code, detail = refusal(device, release(device, TWO, version=2))
    assert (code, detail) == ("in-use", "demo_drv is in use: reference count 1")
    wanted = release(device, TWO, version=2, parts=("drv",), kinds=("service",))
    stage(device, wanted, "b")


def test_what_is_in_use_at_the_last_moment_is_left_as_it_was(device: DeviceUnderTest) -> None:
    first, second = release(device, ONE), release(device, TWO, version=2)
    tree = install(device, first, "a")
    before = device.kernel.system()
    new = stage(device, second, "b")
    device.kernel.use("demo_drv", 1)
    found = device.refused("activate", release=second, slot="b", previous="a", before=first, tree=new)
    assert (found.code, "is in use" in found.detail) == ("in-use", True)
    device.run("revert", package="app", slot="b", previous="a", release=first, tree=tree)
    assert (device.kernel.system(), device.kernel.loaded()) == (before, {"demo_drv": "1.0"})
    assert "rmmod demo_drv" in device.kernel.calls()


def test_a_new_module_that_is_in_use_is_undone_on_the_disk_first(device: DeviceUnderTest) -> None:
    """So that a boot helps where nothing else does."""
    first, second = release(device, ONE), release(device, TWO, version=2)
    tree = install(device, first, "a")
    before = device.kernel.system()
    activate(device, second, "b", first)
    device.kernel.use("demo_drv", 1)
    back = {"package": "app", "slot": "b", "previous": "a", "release": first, "tree": tree}
    for _ in range(2):
        assert device.refused("revert", **back).code == "in-use"
        assert (device.kernel.system(), device.kernel.loaded()) == (before, {"demo_drv": "2.0"})
    device.kernel.boot()
    assert device.kernel.loaded() == {"demo_drv": "1.0"}
    device.run("revert", **back)
    assert (device.kernel.system(), device.kernel.loaded()) == (before, {"demo_drv": "1.0"})


def test_the_right_module_is_neither_unloaded_nor_loaded_again(device: DeviceUnderTest) -> None:
    """Rule 1: also where a process uses it."""
    first = release(device, ONE)
    tree = activate(device, first, "a")
    device.kernel.calls()
    device.kernel.use("demo_drv", 1)
    device.run("activate", release=first, slot="a", previous=None, tree=tree)
    device.run("commit", release=first, slot="a")
    install(device, replace(first, version="2.0", counter=2), "b", first)
    assert {call.split()[0] for call in device.kernel.calls()} == {"depmod"}
    assert device.kernel.loaded() == {"demo_drv": "1.0"}


def test_two_builds_of_one_source_are_told_apart(device: DeviceUnderTest) -> None:
    """The same srcversion and version, another build id."""
    first = release(device, ONE)
    install(device, first, "a")
    device.kernel.calls()
    install(device, release(device, replace(ONE, build=b"other"), version=2), "b", first)
    assert "rmmod demo_drv" in device.kernel.calls()
    note = device.kernel.root / "sys/module/demo_drv/notes/.note.gnu.build-id"
    assert b"other" in note.read_bytes()


def test_a_kernel_that_shows_no_build_id_is_told_by_the_version(device: DeviceUnderTest) -> None:
    first, second = release(device, ONE), release(device, TWO, version=2)
    install(device, first, "a")
    (device.kernel.root / "sys/module/demo_drv/notes/.note.gnu.build-id").unlink()
    assert verdict(device, first) == (None, "")
    install(device, second, "b", first)
    assert device.kernel.loaded() == {"demo_drv": "2.0"}


def test_only_modules_of_the_package_are_unloaded(device: DeviceUnderTest) -> None:
    """What they depend on stays, also where nobody else uses it."""
    first = release(device, replace(ONE, depends=("own",)))
    install(device, first, "a")
    install(device, release(device, replace(TWO, depends=("own",)), version=2), "b", first)
    assert device.kernel.loaded() == {"demo_drv": "2.0", "own": ""}
    assert "rmmod own" not in device.kernel.calls()


def test_files_of_every_kernel_of_the_device_are_put_and_no_others(device: DeviceUnderTest) -> None:
    first = release(device, ONE, kernels=(KERNEL, OTHER, "9.9.9"))
    install(device, first, "a")
    found = {path for path in device.kernel.system() if "demo_drv" in path}
    assert found == {PLACE, f"lib/modules/{OTHER}/updates/demo_drv.ko"}
    assert (device.kernel.root / PLACE).stat().st_mode & 0o7777 == 0o644
    assert {"depmod 6.1.0-test", "depmod 6.1.0-other"} <= set(device.kernel.calls())
    second = release(device, TWO, version=2)
    install(device, second, "b", first)
    assert {path for path in device.kernel.system() if "demo_drv" in path} == {PLACE}, "the old one would be loaded"


def test_a_kernel_that_another_owner_has_a_driver_for_is_left_alone(device: DeviceUnderTest) -> None:
    device.kernel.install(Module(kernel=OTHER, version="theirs"), "updates/demo_drv.ko", OTHER)
    before = device.kernel.system()[f"lib/modules/{OTHER}/updates/demo_drv.ko"]
    install(device, release(device, ONE), "a")
    assert device.kernel.system()[f"lib/modules/{OTHER}/updates/demo_drv.ko"] == before


def test_a_module_that_dkms_built_is_replaced_and_comes_back(device: DeviceUnderTest) -> None:
    device.kernel.install(Module(version="dkms", build=b"dkms"), "updates/dkms/demo-drv.ko.xz")
    device.kernel.install(Module(version="odd", build=b"odd"), "updates/demo_drv.ko.gz.bak")
    device.kernel.machine().modprobe("demo_drv")
    before = device.kernel.system()
    wanted = release(device, ONE)
    activate(device, wanted, "a")
    assert {path for path in device.kernel.system() if "demo" in path} == {PLACE, f"{PLACE}.gz.bak"}
    assert device.kernel.loaded() == {"demo_drv": "1.0"}
    device.run("revert", package="app", slot="a", previous=None, release=None, tree=None)
    assert (device.kernel.system(), device.kernel.loaded()) == (before, {"demo_drv": "dkms"})


def test_a_first_installation_that_is_undone_leaves_the_module_unloaded(device: DeviceUnderTest) -> None:
    before = device.kernel.system()
    activate(device, release(device, ONE), "a")
    device.run("revert", package="app", slot="a", previous=None, release=None, tree=None)
    assert (device.kernel.system(), device.kernel.loaded()) == (before, {})


@pytest.mark.parametrize(
    ("module", "asked"), [("pci:v00001AF4d*", True), ("pci:v00001AF5d*", False), ("virtio", False)]
)
def test_a_driver_that_no_boot_loads_is_loaded_where_a_device_asks(
    device: DeviceUnderTest, module: str, asked: bool
) -> None:
    device.kernel.plug_in("pci:v00001AF4d00001000sv0")
    wanted = release(device, replace(ONE, aliases=("usb:v*", module)), load=False)
    install(device, wanted, "a")
    assert device.kernel.loaded() == ({"demo_drv": "1.0"} if asked else {})
    assert LIST not in device.kernel.system()
    assert verdict(device, wanted) == (None, "")
    device.kernel.boot()
    assert device.kernel.loaded() == ({"demo_drv": "1.0"} if asked else {})


def test_a_driver_that_was_loaded_by_hand_is_loaded_again(device: DeviceUnderTest) -> None:
    first, second = release(device, ONE, load=False), release(device, TWO, version=2, load=False)
    install(device, first, "a")
    device.kernel.machine().modprobe("demo_drv")
    install(device, second, "b", first)
    assert device.kernel.loaded() == {"demo_drv": "2.0"}


def test_a_driver_may_cease_to_be_loaded_at_every_boot(device: DeviceUnderTest) -> None:
    first = release(device, ONE)
    tree = install(device, first, "a")
    second = release(device, TWO, version=2, load=False)
    activate(device, second, "b", first)
    assert LIST not in device.kernel.system()
    device.run("revert", package="app", slot="b", previous="a", release=first, tree=tree)
    assert device.kernel.system()[LIST] == b"demo_drv\n"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/modprobe.d/owner.conf", "# no\nblacklist  demo-drv\n"),
        ("etc/modprobe.d/owner.conf", "blacklist \\\n demo_drv"),
        ("usr/lib/modprobe.d/vendor.conf", "blacklist demo_drv # why\n"),
        ("proc/cmdline", "quiet modprobe.blacklist=a,demo-drv\n"),
        ("proc/cmdline", "module_blacklist=demo_drv"),
    ],
)
def test_what_the_owner_has_blacklisted_is_not_loaded(device: DeviceUnderTest, path: str, text: str) -> None:
    (device.kernel.root / path).parent.mkdir(parents=True, exist_ok=True)
    (device.kernel.root / path).write_text(text)
    assert refusal(device, release(device, ONE)) == ("masked", "the owner of this device has blacklisted demo_drv")
    device.kernel.plug_in("pci:v1")
    install(device, release(device, replace(ONE, aliases=("pci:v*",)), load=False), "a")
    assert device.kernel.loaded() == {}


def test_a_blacklist_that_the_owner_overrides_is_none(device: DeviceUnderTest) -> None:
    (device.kernel.root / "usr/lib/modprobe.d").mkdir(parents=True)
    (device.kernel.root / "usr/lib/modprobe.d/vendor.conf").write_text("blacklist demo_drv\n")
    (device.kernel.root / "etc/modprobe.d/vendor.conf").symlink_to("/dev/null")
    (device.kernel.root / "etc/modprobe.d/other").write_text("blacklist demo_drv\n")
    install(device, release(device, ONE), "a")
    assert device.kernel.loaded() == {"demo_drv": "1.0"}


@pytest.mark.parametrize(
    ("command", "words"), [("/bin/false", "install command"), ("/bin/true", "modprobe has not loaded it")]
)
def test_what_the_owner_has_loaded_otherwise_fails(device: DeviceUnderTest, command: str, words: str) -> None:
    wanted = release(device, ONE)
    tree = stage(device, wanted, "a")
    before = device.kernel.system()
    (device.kernel.root / "etc/modprobe.d/owner.conf").write_text(f"install demo_drv {command}\n")
    found = device.refused("activate", release=wanted, slot="a", previous=None, tree=tree)
    assert found.code == "start"
    assert words in found.detail
    device.run("revert", package="app", slot="a", previous=None, release=None, tree=None)
    (device.kernel.root / "etc/modprobe.d/owner.conf").unlink()
    assert device.kernel.system() == before


def test_a_module_that_does_not_load_says_why(device: DeviceUnderTest) -> None:
    first = release(device, ONE)
    tree = install(device, first, "a")
    second = release(device, replace(TWO, says={"fails": "y"}), version=2)
    new = stage(device, second, "b")
    found = device.refused("activate", release=second, slot="b", previous="a", before=first, tree=new)
    assert found.code == "start"
    assert "No such device" in found.detail
    assert "probe failed with error -19" in found.detail
    device.run("revert", package="app", slot="b", previous="a", release=first, tree=tree)
    assert device.kernel.loaded() == {"demo_drv": "1.0"}


def test_without_dmesg_only_modprobe_speaks(device: DeviceUnderTest) -> None:
    (device.kernel.root / "usr/sbin/dmesg").unlink()
    wanted = release(device, replace(ONE, says={"fails": "y"}))
    tree = stage(device, wanted, "a")
    found = device.refused("activate", release=wanted, slot="a", previous=None, tree=tree)
    assert found.detail == "demo_drv: modprobe: ERROR: could not insert 'demo_drv': No such device"


def test_another_module_of_that_name_is_found_out(device: DeviceUnderTest) -> None:
    """The owner's depmod.d prefers another file."""
    device.kernel.install(Module(version="theirs", build=b"theirs"), "extra/demo_drv.ko")
    (device.kernel.root / "etc/depmod.d").mkdir()
    (device.kernel.root / "etc/depmod.d/owner.conf").write_text("override demo_drv * extra\n")
    wanted = release(device, ONE)
    tree = stage(device, wanted, "a")
    found = device.refused("activate", release=wanted, slot="a", previous=None, tree=tree)
    assert found.code == "altered"
    assert "loaded is version theirs" in found.detail
    device.run("revert", package="app", slot="a", previous=None, release=None, tree=None)
    assert device.kernel.loaded() == {}


def test_depmod_that_fails_is_a_failure(device: DeviceUnderTest) -> None:
    wanted = release(device, ONE)
    tree = stage(device, wanted, "a")
    (device.kernel.root / "usr/sbin/depmod").write_text("#!/bin/sh\necho no room\nexit 1\n")
    found = device.refused("activate", release=wanted, slot="a", previous=None, tree=tree)
    assert (found.code, found.detail) == ("io", f"depmod {KERNEL}: no room")


def test_banned_until_proven(device: DeviceUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 2: while it is young neither the boot nor udev loads it; a check does, and lets go once it is old."""
    wanted = release(device, ONE)
    activate(device, wanted, "a")
    assert b"blacklist demo_drv\n" in device.kernel.system()[BAN]
    device.kernel.boot()
    assert device.kernel.loaded() == {}
    assert verdict(device, wanted) == (None, "")
    assert device.kernel.loaded() == {"demo_drv": "1.0"}
    assert BAN in device.kernel.system()
    monkeypatch.setattr(driver, "_PROVEN_S", 0.0)
    assert verdict(device, wanted) == (None, "")
    assert BAN not in device.kernel.system()
    device.kernel.boot()
    assert device.kernel.loaded() == {"demo_drv": "1.0"}


def test_what_is_not_loaded_is_never_proven(device: DeviceUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_PROVEN_S", 0.0)
    wanted = release(device, ONE, load=False)
    activate(device, wanted, "a")
    assert verdict(device, wanted) == (None, "")
    assert BAN in device.kernel.system()
    device.run("commit", release=wanted, slot="a")
    assert BAN not in device.kernel.system()


def test_a_commit_loads_what_a_power_cut_kept_from_being_loaded(device: DeviceUnderTest) -> None:
    wanted = release(device, ONE)
    activate(device, wanted, "a")
    device.kernel.boot()
    device.run("commit", release=wanted, slot="a")
    assert device.kernel.loaded() == {"demo_drv": "1.0"}
    assert not list((device.state_dir / "backup").rglob("*.json"))


def test_a_commit_is_one_even_if_that_fails(device: DeviceUnderTest) -> None:
    wanted = release(device, ONE)
    activate(device, wanted, "a")
    device.kernel.boot()
    (device.kernel.root / "etc/modprobe.d/owner.conf").write_text("install demo_drv /bin/false\n")
    assert device.refused("commit", release=wanted, slot="a").code == "start"
    device.run("commit", release=wanted, slot="a")
    assert not list((device.state_dir / "backup").rglob("*.json"))


def test_a_check_finds_what_went_wrong(device: DeviceUnderTest) -> None:
    wanted = release(device, ONE)
    activate(device, wanted, "a")
    device.kernel.machine().remove("demo_drv")
    device.kernel.machine().insert("demo_drv", TWO.file())
    assert verdict(device, wanted) == ("unhealthy", verdict(device, wanted)[1])
    assert "version 2.0" in verdict(device, wanted)[1]
    device.kernel.machine().remove("demo_drv")
    (device.kernel.root / "etc/modprobe.d/owner.conf").write_text("install demo_drv /bin/false\n")
    assert verdict(device, wanted)[0] == "crashed"


def test_an_oops_ends_the_probation(device: DeviceUnderTest) -> None:
    wanted = release(device, replace(ONE, says={"oopses": "y"}))
    activate(device, wanted, "a")
    code, detail = verdict(device, wanted)
    assert code == "crashed"
    assert "oops" in detail


def test_an_oops_of_before_is_not_the_release_s_fault(device: DeviceUnderTest) -> None:
    (device.kernel.root / "proc/sys/kernel/tainted").write_text("128\n")
    wanted = release(device, ONE)
    activate(device, wanted, "a")
    assert verdict(device, wanted) == (None, "")


def test_a_module_may_get_another_name(device: DeviceUnderTest) -> None:
    first, second = release(device, ONE), release(device, replace(TWO, name="demo_two"), version=2)
    tree = install(device, first, "a")
    before = device.kernel.system()
    activate(device, second, "b", first)
    assert device.kernel.loaded() == {"demo_two": "2.0"}
    assert PLACE not in device.kernel.system()
    assert device.kernel.system()[LIST] == b"demo_two\n"
    device.run("revert", package="app", slot="b", previous="a", release=first, tree=tree)
    assert (device.kernel.system(), device.kernel.loaded()) == (before, {"demo_drv": "1.0"})


def test_a_module_may_move_to_another_part(device: DeviceUnderTest) -> None:
    first = release(device, ONE, replace(ONE, name="other"), parts=("x", "y"))
    tree = install(device, first, "a")
    before = device.kernel.system()
    second = release(device, TWO, replace(TWO, name="third"), version=2, parts=("z", "y"))
    activate(device, second, "b", first)
    assert device.kernel.loaded() == {"demo_drv": "2.0", "third": "2.0"}
    device.run("revert", package="app", slot="b", previous="a", release=first, tree=tree)
    assert (device.kernel.system(), device.kernel.loaded()) == (before, {"demo_drv": "1.0", "other": "1.0"})


def test_a_driver_that_the_new_release_has_not_is_gone(device: DeviceUnderTest) -> None:
    first = release(device, ONE, parts=("drv",), kinds=("files",))
    tree = install(device, first, "a")
    before = device.kernel.system()
    device.run("commit", release=first, slot="a")
    second = replace(first, version="2.0", counter=2, targets=first.targets[1:])
    activate(device, second, "b", first)
    assert device.kernel.loaded() == {}
    assert not {path for path in device.kernel.system() if "demo_drv" in path or "load.d/fairlead" in path}
    device.run("revert", package="app", slot="b", previous="a", release=first, tree=tree)
    assert (device.kernel.system(), device.kernel.loaded()) == (before, {"demo_drv": "1.0"})


def test_names_in_the_artifact_never_become_configuration(device: DeviceUnderTest) -> None:
    """Attack B14: a file of another name is no module of ours, whatever it is called."""
    files = {f"{KERNEL}/demo_drv.ko": ONE.file(), f"{KERNEL}/x install y -z.ko": b"", f"{KERNEL}/UPPER.ko": b""}
    activate(device, release(device, ONE, files=files), "a")
    assert device.kernel.system()[BAN].decode().splitlines()[-1] == "blacklist demo_drv"
    assert "blacklist" not in device.kernel.system()[BAN].decode().split("\n", 2)[1]


def test_a_tool_that_is_not_there_is_said(device: DeviceUnderTest) -> None:
    (device.kernel.root / "usr/sbin/modprobe").unlink()
    wanted = release(device, ONE)
    tree = stage(device, wanted, "a")
    found = device.refused("activate", release=wanted, slot="a", previous=None, tree=tree)
    assert (found.code, found.detail) == ("unsupported", "this device has no modprobe")


def test_an_artifact_of_one_file_is_no_driver(device: DeviceUnderTest) -> None:
    artifact = Artifact(ONE.file(), len(ONE.file()), 1, "raw")
    device.shelf.append(artifact)
    target = planned_target(artifact, kind="driver")
    made = Driver(module="demo_drv", kernels=(KERNEL,), load=True)
    wanted = planned_release(replace(target, install=replace(target.install, driver=made)))
    assert refusal(device, wanted)[0] == "kernel"


def test_a_torn_index_is_no_more_than_a_missing_one(device: DeviceUnderTest) -> None:
    """As a power cut may leave it, before depmod has put it right."""
    (device.kernel.tree() / "modules.dep").write_bytes(b"kernel/o\xff\x00\xfe" * 10_000)
    assert "needs own" in refusal(device, release(device, replace(ONE, depends=("own",))))[1]
    install(device, release(device, ONE), "a")
    assert device.kernel.loaded() == {"demo_drv": "1.0"}
