"""From a directory tree to an artifact: the same tree gives the same bytes.

What a file's owner, times, umask, inode order or locale were does not matter. The compressor does: the
same bytes need the same release of zstd, which the pinned requirements fix.
"""

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import zstandard

from firmware_tools import debian, description
from firmware_tools.artifact import CHUNK
from firmware_tools.debian import FromRepository
from firmware_tools.description import Description
from firmware_tools.driver_files import driver_of
from firmware_tools.unit_options import check_unit
from fleet_protocol.archive import WINDOW_SIZE, MemberNames
from fleet_protocol.catalogue import Kind, Requirement, TargetInfo
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.install import DebianPackage, Dependencies, HealthCheck, Install, Unit

LEVEL: Final = 19
OPTIONS_NAME: Final = "fairlead.toml"
_BLOCK: Final = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSpec:
    """What the release engineer says of an artifact; sizes and digests are measured."""

    package: str
    version: str
    counter: int
    kind: Kind
    classes: tuple[str, ...]
    exec: tuple[str, ...] = ()
    stop_s: int = 10
    check: HealthCheck | None = None
    requires: tuple[Requirement, ...] = ()
    text: str = ""
    part: str = ""
    """Its name among the artifacts of the release that are for one class."""
    unit: Unit | None = None
    repository: tuple[FromRepository, ...] = ()
    """Debian packages that devices get from their own repositories."""
    dependencies: Dependencies = "release"
    load: bool = True
    """Whether a driver is loaded at every boot."""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    source: Path
    directory: bool
    executable: bool
    size: int


def pack(source: Path, out: Path, spec: ReleaseSpec, *, level: int = LEVEL) -> Description:
    """Write the artifact and its description beside it, and return the description.

    A directory becomes a `tar.zst`; a regular file is copied as it is (`raw`). Raises PolicyError `bad-request`
    where the tree holds a link, a device or a name that a device would refuse, or `spec` is not valid.
    """
    if not source.is_dir() and not source.is_file():
        raise PolicyError("bad-request", f"{source} is neither a directory nor a regular file")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise PolicyError("bad-request", f"{out} lies in the tree that is packed: write it somewhere else")
    temporary = out.with_name(out.name + ".part")
    try:
        size, files = _pack_tree(source, temporary, level) if source.is_dir() else _copy(source, temporary)
        found = _describe(source, temporary, spec, size, files)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    description.write(out, found)
    return found


def _describe(source: Path, packed: Path, spec: ReleaseSpec, size: int, files: int) -> Description:
    try:
        info = TargetInfo(
            package=spec.package,
            kind=spec.kind,
            version=spec.version,
            counter=spec.counter,
            classes=tuple(sorted(spec.classes)),
            format="tar.zst" if source.is_dir() else "raw",
            unpacked_size=size,
            unpacked_files=files,
            precursors=(),
            requires=spec.requires,
            install=_install(source, spec),
            text=spec.text,
            part=spec.part,
        )
    except ProtocolError as error:
        raise PolicyError("bad-request", error.detail) from None
    _check_runs(source, spec)
    length, sha256 = digest(packed)
    return Description(path=description.target_path(info), length=length, sha256=sha256, custom=info)


def _install(source: Path, spec: ReleaseSpec) -> Install:
    driver = driver_of(source, spec.classes, load=spec.load) if spec.kind == "driver" else None
    return Install(
        exec=spec.exec,
        stop_s=spec.stop_s,
        check=spec.check,
        unit=spec.unit,
        driver=driver,
        packages=_packages(source, spec),
        dependencies=spec.dependencies,
    )


def _packages(source: Path, spec: ReleaseSpec) -> tuple[DebianPackage, ...]:
    if spec.kind == "package":
        return debian.packages(source, spec.package, spec.repository)
    if spec.repository or spec.dependencies != "release":
        raise PolicyError("bad-request", "repository and dependencies are for kind package")
    return ()


def _check_runs(source: Path, spec: ReleaseSpec) -> None:
    """A release that could never start is refused here, not on a thousand devices."""
    if spec.kind == "service" and not spec.exec and spec.unit is None:
        raise PolicyError("bad-request", "a service needs exec, the program to run and its arguments, or a unit")
    if spec.kind == "package" and spec.exec:
        raise PolicyError("bad-request", "exec is for services: what a Debian package runs, it starts by itself")
    if spec.unit is not None:
        if spec.kind != "service":
            raise PolicyError("bad-request", "a unit is for releases of kind service")
        check_unit(source, spec.unit)
    if spec.kind == "driver" and spec.exec:
        raise PolicyError("bad-request", "a driver runs no program: exec is for services")
    programs = [spec.exec[0]] if spec.exec else []
    if spec.check is not None and spec.check.kind == "exec":
        programs.append(spec.check.target)
    for program in programs:
        if not program.startswith("/") and "${" not in program:
            _check_program(source, spec, program)


def _check_program(source: Path, spec: ReleaseSpec, program: str) -> None:
    path = source / program
    if source.is_dir():
        if not path.is_file() or not path.stat().st_mode & stat.S_IXUSR:
            raise PolicyError("bad-request", f"{program} is not an executable file in {source}")
    elif (spec.kind, program) != ("service", spec.package):
        one = f"{source} is packed alone" + (f", as the program {spec.package}" if spec.kind == "service" else "")
        raise PolicyError("bad-request", f"{one}: {program} is not with it; pack a directory that holds both")


def _pack_tree(source: Path, out: Path, level: int) -> tuple[int, int]:
    """Write the compressed archive; returns `unpacked_size` and `unpacked_files`."""
    entries = list(_entries(source))
    infos = [_tar_info(entry) for entry in entries]
    headers = [info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict") for info in infos]
    total = sum(len(header) for header in headers) + sum(_padded(entry.size) for entry in entries) + 2 * _BLOCK
    with out.open("wb") as file:
        # Not a context manager: after an error it would complain that the frame is not whole, and hide the error.
        packed = _compressor(level, total).stream_writer(file, size=total, closefd=False)
        for entry, header in zip(entries, headers, strict=True):
            packed.write(header)
            if not entry.directory:
                _write_content(packed, entry)
        packed.write(bytes(2 * _BLOCK))
        packed.flush(zstandard.FLUSH_FRAME)
        file.flush()
        os.fsync(file.fileno())
    return sum(entry.size for entry in entries), len(entries)


def _compressor(level: int, total: int) -> zstandard.ZstdCompressor:
    """One thread, one frame, sizes known beforehand: nothing about this machine gets into the bytes."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=total,
        window_log=min(WINDOW_SIZE.bit_length() - 1, max(10, (total - 1).bit_length())),
        threads=0,
        write_checksum=False,
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def _entries(root: Path) -> Iterator[_Entry]:
    names = MemberNames()
    for name, path, status in _sorted_tree(root, ""):
        directory = stat.S_ISDIR(status.st_mode)
        if not directory and not stat.S_ISREG(status.st_mode):
            raise PolicyError("bad-request", f"{path} is a link or a device: only files and directories are packed")
        try:
            names.add(name, directory=directory)
        except ProtocolError as error:
            raise PolicyError("bad-request", f"{path}: {error.detail}: rename it") from None
        size = 0 if directory else status.st_size
        yield _Entry(name, path, directory, bool(status.st_mode & stat.S_IXUSR), size)


def _sorted_tree(directory: Path, prefix: str) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Every entry below `directory`, parents first, in the byte order of the names."""
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        if not prefix and entry.name == OPTIONS_NAME:
            continue
        status = entry.stat(follow_symlinks=False)
        yield prefix + entry.name, Path(entry.path), status
        if entry.is_dir(follow_symlinks=False):
            yield from _sorted_tree(Path(entry.path), f"{prefix}{entry.name}/")


def _tar_info(entry: _Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.name)
    info.type = tarfile.DIRTYPE if entry.directory else tarfile.REGTYPE
    info.mode = 0o755 if entry.directory or entry.executable else 0o644
    info.size = entry.size
    return info


def _write_content(packed: IO[bytes], entry: _Entry) -> None:
    descriptor = os.open(entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    left = entry.size
    with os.fdopen(descriptor, "rb") as file:
        while chunk := file.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            packed.write(chunk)
    if left:
        raise PolicyError("bad-request", f"{entry.source} changed while it was packed: try again")
    packed.write(bytes(_padded(entry.size) - entry.size))


def _copy(source: Path, out: Path) -> tuple[int, int]:
    size = 0
    with source.open("rb") as file, out.open("wb") as copy:
        while chunk := file.read(CHUNK):
            copy.write(chunk)
            size += len(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    return size, 1


def digest(path: Path) -> tuple[int, str]:
    """Length in bytes and sha256 of a file."""
    found, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
            length += len(chunk)
    return length, found.hexdigest()


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
