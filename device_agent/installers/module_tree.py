"""The modules of one kernel release below /lib/modules, as depmod(8) and modprobe(8) see them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from device_agent.adapters.files import fsync_dir
from device_agent.installers.crash import crash_point
from device_agent.installers.programs import Programs
from device_agent.installers.system_files import SystemFiles
from fleet_protocol.errors import InstallError, ProtocolError
from fleet_protocol.module_file import FILE_SIZE, ModuleFile, read_module

_ROOT: Final = "/lib/modules"
_SUFFIXES: Final = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
_DEPMOD_S: Final = 600.0
"""It reads every module of the release: 10 s on a slow device, more on a slow disk."""
_LINE_MOST: Final = 64 * 1024


def installed_releases(files: SystemFiles) -> frozenset[str]:
    """The kernel releases that the device has modules of."""
    place = files.place(_ROOT)
    return frozenset(path.name for path in place.iterdir() if path.is_dir()) if place.is_dir() else frozenset()


def release_of(path: str) -> str | None:
    """The kernel release whose directory a path of the system lies in, or None for another path."""
    return path.split("/")[3] if path.startswith(f"{_ROOT}/") else None


def module_name(file_name: str) -> str | None:
    """The module that a file of this name holds, or None for another file."""
    stem, _, suffix = file_name.partition(".ko")
    return stem.replace("-", "_") if f".ko{suffix}" in _SUFFIXES and stem else None


class ModuleTree:
    """One release's directory. Errors of the disk come as OSError."""

    def __init__(self, files: SystemFiles, programs: Programs, release: str) -> None:
        self._files, self._programs, self.release = files, programs, release
        self._root = f"{_ROOT}/{release}"

    @property
    def exists(self) -> bool:
        """Whether the device has this kernel's modules."""
        return self._files.place(self._root).is_dir()

    @property
    def is_writable(self) -> bool:
        """Whether this process may put a file there: the agent may not be root, or the system be read-only."""
        return os.access(self._files.place(self._root), os.W_OK)

    def place(self, module: str) -> str:
        """Where a module of ours stands: depmod prefers `updates` to the kernel's own."""
        return f"{self._root}/updates/{module}.ko"

    def files_of(self, module: str) -> tuple[str, ...]:
        """Every file below `updates` that holds a module of this name, ours included, in whatever form."""
        found = []
        updates = f"{self._root}/updates"
        for directory, _, names in os.walk(self._files.place(updates)):
            below = os.path.relpath(directory, self._files.place(updates))
            prefix = updates if below == "." else f"{updates}/{below}"
            found += [f"{prefix}/{name}" for name in names if module_name(name) == module]
        return tuple(sorted(found))

    def index(self) -> None:
        """What is in the directory is what modprobe finds, also after a power cut. Raises InstallError `io`."""
        crash_point("driver.before_depmod")
        ran = self._programs.run("depmod", self.release, timeout_s=_DEPMOD_S)
        if ran.status != 0:
            raise InstallError("io", f"depmod {self.release}: {ran.last_words}")
        place = self._files.place(self._root)
        for path in place.glob("modules.*"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_dir(place)
        crash_point("driver.after_depmod")

    def has(self, module: str) -> bool:
        """Whether modprobe would find it, or the kernel has it built in."""
        return self.is_builtin(module) or any(_named(path) == module for path in self._paths("modules.dep"))

    def is_builtin(self, module: str) -> bool:
        """Whether it is part of the kernel, so that no file can replace it."""
        return any(_named(path) == module for path in self._paths("modules.builtin"))

    def sample(self) -> ModuleFile | None:
        """One of the kernel's own modules, to compare with; None where none can be read."""
        for path in self._paths("modules.dep"):
            if path.startswith("kernel/"):
                data = _unpacked(self._files.place(self._root) / path)
                with suppress(ProtocolError):
                    return None if data is None else read_module(data)
                return None
        return None

    def _paths(self, index: str) -> Iterator[str]:
        """The file of each line; a power cut may have left anything in the others."""
        with suppress(FileNotFoundError), (self._files.place(self._root) / index).open("rb") as lines:
            while line := lines.readline(_LINE_MOST):
                path = line.decode("utf-8", "replace").partition(":")[0].strip()
                if path.isprintable():
                    yield path


def _named(path: str) -> str | None:
    return module_name(path.rpartition("/")[2])


def _unpacked(path: Path) -> bytes | None:
    """The module in the file, or None where it can not be read."""
    opener: Any = open
    broken: type[Exception] = OSError
    if path.suffix == ".xz":
        import lzma  # noqa: PLC0415 - as the others: kernels have their modules in one of these forms

        opener, broken = lzma.open, lzma.LZMAError
    elif path.suffix == ".gz":
        import gzip  # noqa: PLC0415
        import zlib  # noqa: PLC0415

        opener, broken = gzip.open, zlib.error
    elif path.suffix == ".zst":
        import zstandard  # noqa: PLC0415

        opener, broken = zstandard.open, zstandard.ZstdError
    try:
        with opener(path, "rb") as file:
            return bytes(file.read(FILE_SIZE + 1))
    except (OSError, EOFError, broken):
        return None
