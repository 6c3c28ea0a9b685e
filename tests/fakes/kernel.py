"""A device whose kernel is a directory: the system root for drivers, and what a boot makes of it."""

import shutil
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.fakes import kernel_tool
from tests.fakes.elf import KERNEL, Module

OTHER = "6.1.0-other"
"""A kernel that the device has, and does not run."""
_MAIN = """#!{python} -IS
import sys
import uuid
sys.path.insert(0, {directory!r})
import {module}
{module}.run()
"""
"""Imported and not run as it is, so that its bytecode is kept."""


class FakeKernel:
    """Below one root, which is not there yet."""

    def __init__(self, root: Path, release: str = KERNEL) -> None:
        self.root, self.release = root, release
        for directory in (
            "usr/sbin",
            "proc/sys/kernel/random",
            "sys/bus",
            "etc/modprobe.d",
            "etc/modules-load.d",
            "fake",
        ):
            (root / directory).mkdir(parents=True, exist_ok=True)
        (root / "proc/sys/kernel/osrelease").write_text(f"{release}\n")
        (root / "proc/cmdline").write_text("root=/dev/vda ro\n")
        (root / "fake/kmsg").touch()
        place = Path(kernel_tool.__file__)
        for name in ("modprobe", "rmmod", "depmod", "dmesg"):
            text = _MAIN.format(python=sys.executable, directory=str(place.parent), module=place.stem)
            (root / "usr/sbin" / name).write_text(text)
            (root / "usr/sbin" / name).chmod(0o755)
        for kernel in (release, OTHER):
            self.install(Module(name="own", kernel=kernel, version=None), "kernel/own.ko", kernel)
            (self.tree(kernel) / "modules.builtin").write_text("kernel/fs/ext4.ko\n")
        self.boot()

    def tree(self, release: str | None = None) -> Path:
        return self.root / "lib/modules" / (release or self.release)

    def install(self, module: Module, path: str, release: str | None = None) -> None:
        """As another package of the system would: the file, and depmod."""
        place = self.tree(release) / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(kernel_tool.lzma.compress(module.file()) if path.endswith(".xz") else module.file())
        self.machine().depmod(release or self.release)

    def machine(self) -> kernel_tool.Machine:
        return kernel_tool.Machine(self.root)

    def boot(self) -> None:
        """Nothing is loaded but what comes by itself; modules that panic then are counted."""
        shutil.rmtree(self.root / "sys/module", ignore_errors=True)
        (self.root / "sys/module/own_builtin/parameters").mkdir(parents=True)
        shutil.rmtree(self.root / "fake/users", ignore_errors=True)
        (self.root / "proc/sys/kernel/tainted").write_text("0\n")
        (self.root / "proc/sys/kernel/random/boot_id").write_text(f"{uuid.uuid4()}\n")
        (self.root / "fake/is-booting").touch()
        self.machine().boot()
        (self.root / "fake/is-booting").unlink()

    def use(self, name: str, pid: int) -> None:
        """A process opens the module's device."""
        users = self.root / "fake/users" / name
        users.mkdir(parents=True, exist_ok=True)
        (users / str(pid)).touch()
        self.machine().refcnt(name)

    def plug_in(self, modalias: str) -> None:
        """A device appears; nobody loads anything for it yet."""
        place = self.root / "sys/bus/pci/devices/0000:00:01.0"
        place.mkdir(parents=True)
        (place / "modalias").write_text(f"{modalias}\n")

    def kill_at(self, call: int, when: str) -> None:
        """The process group that makes this call of a tool, counted from 1, is gone: `before`, `after` or `torn`."""
        (self.root / "fake/kill-at").write_text(f"{call} {when}")

    def loaded(self) -> dict[str, str]:
        """The version of each loaded module."""
        places = (path.parent for path in sorted((self.root / "sys/module").glob("*/initstate")))
        return {
            place.name: (place / "version").read_text().strip() if (place / "version").exists() else ""
            for place in places
        }

    def panics(self) -> int:
        """How often a module took the device down."""
        place = self.root / "fake/panics"
        return len(place.read_text().splitlines()) if place.exists() else 0

    def calls(self) -> list[str]:
        """What was run since the last look."""
        place = self.root / "fake/calls"
        found = place.read_text().splitlines() if place.exists() else []
        place.unlink(missing_ok=True)
        return found

    def system(self) -> dict[str, bytes]:
        """Every file that an installer could have touched; depmod's own are the tools' business."""
        places: Sequence[str] = ("lib/modules", "etc/modprobe.d", "etc/modules-load.d")
        files = (path for place in places for path in sorted((self.root / place).rglob("*")) if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}
