"""Kernel modules at the release engineer's: what the files say of themselves, and what a device would refuse.

Rules
1. Every module of the tree is `<kernel>/<module>.ko`, one in each directory, the same one in all of them.
2. The kernel that a file was built for is the name of its directory, as `uname -r` prints it on the device.
3. All are for one machine; where a class of the release is named like a machine, it is that one.
4. Each has something to know it by: MODULE_VERSION, or a build id.

In `fairlead.toml`:

[driver]
load = true            # at every boot; false: where a device asks for it, and where it was loaded before
"""

import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import zstandard

from fleet_protocol.archive import WINDOW_SIZE
from fleet_protocol.catalogue import TargetInfo
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.install import Driver
from fleet_protocol.module_file import FILE_SIZE, MACHINES, ModuleFile, read_module

_SUFFIX: Final = ".ko"

Modules = Mapping[str, ModuleFile]
"""By kernel release."""


def load_of(options: Mapping[str, Any]) -> bool:
    """What `[driver]` says of loading. Raises PolicyError `bad-request`."""
    if not set(options) <= {"load"} or type(options.get("load", True)) is not bool:
        raise PolicyError("bad-request", "[driver] has load, true or false, and nothing else: the rest is measured")
    return bool(options.get("load", True))


def driver_of(tree: Path, classes: Iterable[str], *, load: bool) -> Driver:
    """The driver in a directory that is to be packed. Raises PolicyError `bad-request` for one that breaks a rule."""
    if not tree.is_dir():
        raise PolicyError("bad-request", "a driver is a directory with <kernel>/<module>.ko for each kernel")
    return _driver(_read(_in_tree(tree)), classes, load=load)


def check_artifact(artifact: Path, info: TargetInfo) -> None:
    """Raise PolicyError `bad-request` unless a `tar.zst` holds the very driver that is said of it."""
    said = info.install.driver
    found = _driver(modules_of(artifact), info.classes, load=said is not None and said.load)
    if found != said:
        raise PolicyError("bad-request", f"{artifact} holds another driver than is said of it: pack it anew")


def modules_of(artifact: Path) -> Modules:
    """The modules in a `tar.zst` artifact, which was measured before. Raises PolicyError `bad-request`."""
    return _read(_in_archive(artifact))


def driver_lines(driver: Driver) -> list[str]:
    """What a device does with it, for whoever signs."""
    when = "at every boot" if driver.load else "where a device asks for it, or where it was loaded before"
    return [f"  puts the kernel module {driver.module} into place, loaded {when}", *_kernels(driver.kernels)]


def module_lines(modules: Modules) -> list[str]:
    """What the files say of themselves."""
    lines = []
    for kernel, module in modules.items():
        build = f"version {module.version or '-'}, srcversion {module.srcversion or '-'}"
        lines.append(f"  {kernel}: {module.name}, {build}, {'signed' if module.signed else 'not signed'}")
        lines.append(f"    vermagic {module.vermagic}; {module.machine}; depends on {', '.join(module.depends) or '-'}")
        if module.permanent:
            lines.append("    HAS NO EXIT FUNCTION: no device that loads it can go back before its next boot")
    return lines


def _kernels(kernels: tuple[str, ...]) -> list[str]:
    return [f"    for kernel {kernel}" for kernel in kernels]


def _driver(modules: Modules, classes: Iterable[str], *, load: bool) -> Driver:
    if not modules:
        raise PolicyError("bad-request", "there is no <kernel>/<module>.ko in it")
    names = sorted({module.name for module in modules.values()})
    if len(names) > 1:
        raise PolicyError("bad-request", f"{' and '.join(names)} are two modules: pack each as a part of its own")
    machines = {module.machine for module in modules.values()}
    machines |= {MACHINES[name] for name in classes if name in MACHINES}
    if len(machines) > 1:
        raise PolicyError("bad-request", f"{names[0]} is for {', '.join(sorted(map(str, machines)))}: one at a time")
    try:
        return Driver(module=names[0], kernels=tuple(sorted(modules)), load=load)
    except ProtocolError as error:
        raise PolicyError("bad-request", error.detail) from None


def _read(files: Iterable[tuple[str, bytes]]) -> Modules:
    found: dict[str, ModuleFile] = {}
    for path, data in files:
        kernel, _, name = path.partition("/")
        if not name or "/" in name:
            raise PolicyError("bad-request", f"{path}: a module stands in a directory named like its kernel")
        try:
            module = read_module(data)
        except ProtocolError as error:
            raise PolicyError("bad-request", f"{path}: {error.detail}") from None
        if kernel in found:
            raise PolicyError("bad-request", f"{path}: one module for each kernel; pack others as parts of their own")
        _check(path, kernel, module)
        found[kernel] = module
    return dict(sorted(found.items()))


def _check(path: str, kernel: str, module: ModuleFile) -> None:
    stem = path.rpartition("/")[2].removesuffix(_SUFFIX)
    if module.name != stem:
        raise PolicyError("bad-request", f"{path} is the module {module.name}: name it {module.name}{_SUFFIX}")
    if module.kernel != kernel:
        raise PolicyError("bad-request", f"{path} is built for kernel {module.kernel}: no kernel {kernel} loads it")
    if module.version is None and module.srcversion is None and module.build_id is None:
        raise PolicyError("bad-request", f"{path} has nothing to know it by: give it a MODULE_VERSION")


def _in_tree(tree: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(tree.rglob(f"*{_SUFFIX}")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                yield path.relative_to(tree).as_posix(), file.read(FILE_SIZE + 1)


def _in_archive(artifact: Path) -> Iterator[tuple[str, bytes]]:
    decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_SIZE)
    with (
        artifact.open("rb") as file,
        decoder.stream_reader(file) as plain,
        tarfile.open(fileobj=plain, mode="r|") as archive,  # its form is known to be good: it was measured
    ):
        for member in archive:
            content = archive.extractfile(member) if member.isreg() and member.name.endswith(_SUFFIX) else None
            if content is not None:
                yield member.name, content.read(FILE_SIZE + 1)
