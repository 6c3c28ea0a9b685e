"""Packing a driver: everything is measured out of the module files, and what no device would load is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from firmware_tools import catalogue, cli, description, driver_files, inspection, packing, statement, verification
from firmware_tools.fleet import Fleet
from firmware_tools.packing import ReleaseSpec
from fleet_protocol.errors import PolicyError
from fleet_protocol.install import Driver
from fleet_protocol.module_file import MACHINES, Machine
from tests.fakes.elf import KERNEL, Module

OTHER = "6.12.3+rpt-rpi-v8"
ARM = replace(Module(), machine=MACHINES["aarch64"])
SPEC = ReleaseSpec(package="demo", version="1.0", counter=1, kind="driver", classes=("aarch64", "my-board"))


def lay(root: Path, files: Mapping[str, bytes | Module]) -> Path:
    """A tree of modules."""
    for name, content in files.items():
        place = root / "tree" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.file() if isinstance(content, Module) else content)
    return root / "tree"


def good(root: Path) -> Path:
    files = {f"{kernel}/demo_drv.ko": replace(ARM, kernel=kernel) for kernel in (OTHER, KERNEL)}
    return lay(root, {**files, "README": b"not a module", "bin/check": b"#!/bin/sh\n"})


def test_module_and_kernels_are_measured(tmp_path: Path) -> None:
    found = packing.pack(good(tmp_path), tmp_path / "out.tar.zst", SPEC)
    assert found.custom.install.driver == Driver(module="demo_drv", kernels=(KERNEL, OTHER), load=True)
    assert description.read(tmp_path / "out.tar.zst") == found
    assert verification.verify_artifact(tmp_path / "out.tar.zst") == found


def test_the_catalogue_measures_again(tmp_path: Path, fleet: Fleet, now_s: float) -> None:
    """Whoever adds or signs it believes nothing that is said of the driver."""
    path = tmp_path / "out.tar.zst"
    found = packing.pack(good(tmp_path), path, SPEC)
    driver = found.custom.install.driver
    assert driver is not None
    for lie in ({"module": "other"}, {"kernels": (KERNEL,)}, {"kernels": (KERNEL, OTHER, "5.4.0")}):
        install = replace(found.custom.install, driver=replace(driver, **lie))
        description.write(path, replace(found, custom=replace(found.custom, install=install)))
        with pytest.raises(PolicyError, match="another driver than is said"):
            catalogue.add(fleet, path, now_s=now_s)
    description.write(
        path, replace(found, custom=replace(found.custom, install=replace(found.custom.install, driver=None)))
    )
    with pytest.raises(PolicyError, match="another driver than is said"):
        catalogue.add(fleet, path, now_s=now_s)
    description.write(path, found)
    assert catalogue.add(fleet, path, now_s=now_s) == found


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"README": b""}, "no <kernel>/<module>.ko"),
        ({f"{KERNEL}/demo_drv.ko": b"#!/bin/sh\n"}, "not an ELF file"),
        ({f"{KERNEL}/demo_drv.ko": replace(ARM, kernel="5.4.0")}, "no kernel 6.1.0-test loads it"),
        ({f"{KERNEL}/demo.ko": ARM}, "name it demo_drv.ko"),
        ({"demo_drv.ko": ARM}, "named like its kernel"),
        ({f"lib/{KERNEL}/demo_drv.ko": ARM}, "named like its kernel"),
        ({f"{KERNEL}/demo_drv.ko": ARM, f"{KERNEL}/other.ko": replace(ARM, name="other")}, "parts of their own"),
        (
            {f"{KERNEL}/demo_drv.ko": ARM, f"{OTHER}/other.ko": replace(ARM, name="other", kernel=OTHER)},
            "demo_drv and other are two modules",
        ),
        ({f"{KERNEL}/demo_drv.ko": replace(ARM, machine=MACHINES["x86_64"])}, "one at a time"),
        ({f"{KERNEL}/demo_drv.ko": replace(ARM, version=None, srcversion=None, build=None)}, "MODULE_VERSION"),
        ({f"{KERNEL}/DEMO.ko": replace(ARM, name="DEMO")}, "module 'DEMO' is not of its form"),
    ],
)
def test_what_no_device_would_load_is_refused(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        packing.pack(lay(tmp_path, files), tmp_path / "out.tar.zst", SPEC)
    assert caught.value.code == "bad-request"
    assert not (tmp_path / "out.tar.zst").exists()


def test_two_machines_are_no_release(tmp_path: Path) -> None:
    files = {
        f"{KERNEL}/demo_drv.ko": ARM,
        f"{OTHER}/demo_drv.ko": replace(ARM, kernel=OTHER, machine=Machine(8, 32, "big")),
    }
    with pytest.raises(PolicyError, match=r"aarch64 .*, kind 8"):
        packing.pack(lay(tmp_path, files), tmp_path / "out.tar.zst", replace(SPEC, classes=("my-board",)))


@pytest.mark.parametrize("changes", [{"exec": ("bin/check",)}, {"kind": "driver", "exec": ("/bin/true",)}])
def test_a_driver_runs_no_program(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="exec is for services"):
        packing.pack(good(tmp_path), tmp_path / "out.tar.zst", replace(SPEC, **changes))


def test_one_file_is_no_driver(tmp_path: Path) -> None:
    (tmp_path / "demo_drv.ko").write_bytes(ARM.file())
    with pytest.raises(PolicyError, match="a driver is a directory"):
        packing.pack(tmp_path / "demo_drv.ko", tmp_path / "out.raw", SPEC)


@pytest.mark.parametrize("options", [{"load": 1}, {"load": "yes"}, {"kernels": []}, {"load": True, "module": "x"}])
def test_nothing_but_loading_is_asked_for(options: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="the rest is measured"):
        driver_files.load_of(options)


@pytest.mark.parametrize(
    ("arguments", "load"), [([], False), (["--load"], True), (["--no-load"], False)], ids=["file", "load", "no-load"]
)
def test_the_command_line_wins(tmp_path: Path, arguments: list[str], load: bool) -> None:
    tree = good(tmp_path)
    (tree / "fairlead.toml").write_text(
        'package = "demo"\nversion = "1.0"\ncounter = 1\nkind = "driver"\nclasses = ["aarch64"]\n'
        "[driver]\nload = false\n"
    )
    out = tmp_path / "out.tar.zst"
    assert cli.run(["pack", str(tree), "--out", str(out), *arguments]) == 0
    driver = description.read(out).custom.install.driver
    assert driver is not None
    assert driver.load is load


def test_options_of_a_driver_are_refused_for_other_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--package", "p", "--version", "1", "--counter", "1", "--kind", "files", "--class", "x", "--load"]
    assert cli.run(["pack", str(good(tmp_path)), *arguments]) == 1
    assert "releases of kind driver" in capsys.readouterr().err


def test_the_signer_reads_what_it_does(tmp_path: Path) -> None:
    found = packing.pack(good(tmp_path), tmp_path / "out.tar.zst", SPEC)
    lines = statement.release_lines(found.custom, found.length, found.sha256)
    assert "  puts the kernel module demo_drv into place, loaded at every boot" in lines
    assert [f"    for kernel {KERNEL}", f"    for kernel {OTHER}"] == [line for line in lines if "for kernel " in line]
    lines = driver_files.driver_lines(Driver(module="demo_drv", kernels=(KERNEL,), load=False))
    assert lines[0].endswith("loaded where a device asks for it, or where it was loaded before")


def test_inspect_shows_what_the_files_say(tmp_path: Path) -> None:
    files = {f"{KERNEL}/demo_drv.ko": replace(ARM, depends=("own",), functions=("init_module",), signed=True)}
    packing.pack(lay(tmp_path, files), tmp_path / "out.tar.zst", SPEC)
    lines = inspection.inspect(tmp_path / "out.tar.zst").lines
    assert lines[1:5] == (
        "kernel modules:",
        f"  {KERNEL}: demo_drv, version 1.0, srcversion 0123456789ABCDEF0123456, signed",
        f"    vermagic {KERNEL} SMP mod_unload; aarch64 (64 bits, little endian); depends on own",
        "    HAS NO EXIT FUNCTION: no device that loads it can go back before its next boot",
    )


def test_inspect_says_why_modules_in_an_artifact_are_no_driver(tmp_path: Path) -> None:
    packing.pack(lay(tmp_path, {"demo_drv.ko": ARM}), tmp_path / "out.tar.zst", replace(SPEC, kind="files"))
    lines = inspection.inspect(tmp_path / "out.tar.zst").lines
    assert lines[1] == "no driver: demo_drv.ko: a module stands in a directory named like its kernel"
