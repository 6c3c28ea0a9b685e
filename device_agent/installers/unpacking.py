"""From a cached artifact to files in a slot, in one pass: read, hash, decompress, write.

1. Sizes and counts are bounded by signed numbers, before anything is read or written for them.
2. Only what `fleet_protocol.archive` allows is unpacked; the first exception ends it.
3. The artifact's digest is checked over the same bytes that were unpacked, through one descriptor.
"""

from collections.abc import Iterator
from pathlib import Path

from device_agent.core.plan import PlannedTarget
from device_agent.installers.hashing import HashLane
from device_agent.installers.tree_writer import TreeWriter
from device_agent.installers.verified_file import BLOCK, VerifiedFile, open_verified
from fleet_protocol.errors import ProtocolError


def unpack(artifact: Path, target: PlannedTarget, raw_name: str, writer: TreeWriter, lane: HashLane) -> None:
    """Write the target's content, that of a part below a directory of its name; a `raw` one is the file `raw_name`.

    Raises ProtocolError `digest`, `format` or `archive`, with part of the content written, and OSError.
    """
    with open_verified(artifact, target.length, target.sha256, lane) as source:
        try:
            if target.format == "raw":
                _unpack_raw(source, target, raw_name, writer)
            elif target.format == "tar.zst":
                _unpack_archive(source, target, writer)
            else:
                raise ProtocolError("format", f"format {target.format}")
        except ProtocolError:
            source.finish()  # bytes that are not the signed ones explain whatever the parser said
            raise
        source.finish()


def _unpack_raw(source: VerifiedFile, target: PlannedTarget, name: str, writer: TreeWriter) -> None:
    if (target.unpacked_size, target.unpacked_files) != (target.length, 1):
        raise ProtocolError("format", "a raw artifact unpacks to itself")
    mode = 0o755 if target.kind == "service" else 0o644
    writer.file(_prefix(target, writer) + name, mode, target.length, _blocks(source), digest=target.sha256)


def _prefix(target: PlannedTarget, writer: TreeWriter) -> str:
    if not target.part:
        return ""
    writer.directory(target.part)
    return f"{target.part}/"


def _blocks(source: VerifiedFile) -> Iterator[memoryview]:
    while piece := source.some(BLOCK):
        yield piece


def _unpack_archive(source: VerifiedFile, target: PlannedTarget, writer: TreeWriter) -> None:
    from device_agent.installers.tar_stream import TarStream  # noqa: PLC0415  a raw artifact needs no zstd
    from device_agent.installers.zstd_frame import unpack_frame  # noqa: PLC0415

    stream = TarStream(unpack_frame(source))
    files, size, prefix = 0, 0, _prefix(target, writer)
    for member in stream.members():
        files, size = files + 1, size + member.size
        if files > target.unpacked_files or size > target.unpacked_size:
            raise ProtocolError("archive", "the archive unpacks to more than is signed")
        if member.directory:
            writer.directory(prefix + member.name)
        else:
            writer.file(prefix + member.name, member.mode, member.size, stream.content())
    if (files, size) != (target.unpacked_files, target.unpacked_size):
        raise ProtocolError("archive", f"{files} members of {size} bytes are not the numbers that are signed")
