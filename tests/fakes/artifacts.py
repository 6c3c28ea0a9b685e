"""Artifacts for tests: good ones as the packer makes them, and hostile ones byte by byte."""

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import zstandard

from device_agent.core.plan import PlannedRelease, PlannedTarget
from fleet_protocol.catalogue import Kind
from fleet_protocol.install import HealthCheck, Install

BLOCK = 512
END = bytes(2 * BLOCK)
Tree = Mapping[str, bytes | None]
"""Content by path; None is a directory. Parents are added."""


@dataclass(frozen=True)
class Artifact:
    """Bytes, and the numbers that are signed with them."""

    data: bytes
    unpacked_size: int
    unpacked_files: int
    format: str = "tar.zst"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def header(name: str = "file", size: int = 0, kind: bytes = b"0", mode: int = 0o644, **fields: bytes) -> bytes:
    """One ustar header with a right checksum; `fields` replace raw bytes: magic, linkname, prefix, size_field, ..."""
    block = bytearray(BLOCK)
    places = {"raw_name": 0, "mode_field": 100, "size_field": 124, "linkname": 157, "magic": 257, "prefix": 345}
    block[0 : len(name.encode())] = name.encode()
    block[100:108] = b"%07o\0" % mode
    block[108:124] = b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % 0
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    for field, value in fields.items():
        if field != "checksum":
            block[places[field] : places[field] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = fields.get("checksum", b"%06o\0 " % sum(block))
    return bytes(block)


def member(name: str, content: bytes = b"", **fields: Any) -> bytes:
    """A header and its padded content."""
    return header(name, len(content), **fields) + content + bytes(-len(content) % BLOCK)


def pax(records: Sequence[tuple[str, str]], *, kind: bytes = b"x") -> bytes:
    """An extended header with these records."""
    data = b"".join(_pax_record(key, value) for key, value in records)
    return member("././@PaxHeader", data, kind=kind)


def _pax_record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = len(text)
    while length != len(text) + len(str(length)):
        length = len(text) + len(str(length))
    return str(length).encode() + text


def tar(tree: Tree, modes: Mapping[str, int] | None = None) -> bytes:
    """A POSIX tar stream of the tree, each directory before its content."""
    out = io.BytesIO()
    for name, content in whole(tree).items():
        info = tarfile.TarInfo(name)
        info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
        info.mode = (modes or {}).get(name, 0o755 if content is None else 0o644)
        info.size = len(content or b"")
        out.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        out.write((content or b"") + bytes(-info.size % BLOCK))
    return out.getvalue() + END


def whole(tree: Tree) -> dict[str, bytes | None]:
    """The tree with all its directories, in the packer's order."""
    full: dict[str, bytes | None] = dict(tree)
    for name in tree:
        parts = name.split("/")[:-1]
        full |= {"/".join(parts[: depth + 1]): None for depth in range(len(parts))}
    return dict(sorted(full.items(), key=lambda item: [part.encode() for part in item[0].split("/")]))


def zst(data: bytes, *, level: int = 1, window_log: int = 20, checksum: bool = False) -> bytes:
    """One zstd frame."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, window_log=window_log, write_checksum=checksum, write_content_size=False
    )
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(data) + packer.flush()


def packed(tree: Tree, modes: Mapping[str, int] | None = None) -> Artifact:
    """A good artifact of the tree."""
    full = whole(tree)
    size = sum(len(content or b"") for content in full.values())
    return Artifact(zst(tar(tree, modes)), size, len(full))


def hostile(stream: bytes, *, size: int = 2**20, files: int = 100) -> Artifact:
    """An artifact of any tar stream, well compressed."""
    return Artifact(zst(stream), size, files)


def raw(data: bytes) -> Artifact:
    """A `raw` artifact."""
    return Artifact(data, len(data), 1, "raw")


def planned_target(
    artifact: Artifact,
    *,
    kind: Kind = "files",
    urls: Sequence[str] = (),
    run: Sequence[str] = (),
    check: HealthCheck | None = None,
    stop_s: int = 5,
    path: str = "app/1/any.tar.zst",
    part: str = "",
    **install: Any,
) -> PlannedTarget:
    """The target that the catalogue would list for the artifact; `install` are more members of its `install`."""
    return PlannedTarget(
        path=path,
        length=len(artifact.data),
        sha256=artifact.sha256,
        kind=kind,
        format=artifact.format,
        unpacked_size=artifact.unpacked_size,
        unpacked_files=artifact.unpacked_files,
        install=Install(exec=tuple(run), stop_s=stop_s, check=check, **install),
        urls=tuple(urls),
        part=part,
    )


def planned_release(*targets: PlannedTarget, package: str = "app", version: str = "1.0.0", counter: int = 1) -> Any:
    """A release of these targets."""
    return PlannedRelease(package=package, version=version, counter=counter, targets=targets)


def with_urls(release: PlannedRelease, *urls: str) -> PlannedRelease:
    """The release with other sources for its only target."""
    return replace(release, targets=(replace(release.targets[0], urls=urls),))


def put_in_cache(state_dir: Path, *artifacts: Artifact) -> None:
    """As if they had been fetched."""
    cache = state_dir / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for artifact in artifacts:
        (cache / artifact.sha256).write_bytes(artifact.data)


def read_tree(root: Path) -> dict[str, tuple[int, bytes | None]]:
    """Mode and content by path of what is on the disk."""
    found: dict[str, tuple[int, bytes | None]] = {}
    for path in sorted(root.rglob("*")):
        content = None if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(root))] = (path.stat().st_mode & 0o7777, content)
    return found
