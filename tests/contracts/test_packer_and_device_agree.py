"""What the signer's reader accepts, the device unpacks, byte for byte; what the device refuses, nobody signs."""

import hashlib
import os
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from device_agent.core.plan import PlannedTarget
from device_agent.installers.hashing import hash_lane
from device_agent.installers.tree_writer import TreeWriter
from device_agent.installers.unpacking import unpack
from firmware_tools import artifact, packing
from firmware_tools.packing import ReleaseSpec
from fleet_protocol.errors import ProtocolError
from fleet_protocol.install import Install

SPEC = ReleaseSpec(package="p", version="1", counter=1, kind="files", classes=("x86_64",))


def unpacked(path: Path, out: Path, size: int, files: int) -> None:
    """Unpack as a device does, with these numbers signed."""
    data = path.read_bytes()
    target = PlannedTarget(
        path="p/1/x86_64.tar.zst",
        length=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        kind="files",
        format="tar.zst",
        unpacked_size=size,
        unpacked_files=files,
        install=Install(exec=(), stop_s=1, check=None),
        urls=(),
    )
    out.mkdir()
    root = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with hash_lane() as lane:
            writer = TreeWriter(root, lane)
            try:
                unpack(path, target, "raw", writer, lane)
            finally:
                writer.close()
    finally:
        os.close(root)


def contents(root: Path) -> dict[str, tuple[bytes | None, bool]]:
    return {
        str(path.relative_to(root)): (path.read_bytes() if path.is_file() else None, os.access(path, os.X_OK))
        for path in root.rglob("*")
    }


NAMES = st.from_regex(r"[a-z0-9_.-]{1,80}", fullmatch=True).filter(lambda name: name not in (".", ".."))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(files=st.dictionaries(st.tuples(NAMES, NAMES), st.tuples(st.binary(max_size=3_000), st.booleans()), max_size=5))
def test_what_is_packed_is_what_a_device_unpacks(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, str], tuple[bytes, bool]]
) -> None:
    base = tmp_path_factory.mktemp("agree")
    (base / "tree").mkdir()
    for (directory, name), (content, executable) in files.items():
        path = base / "tree" / f"d{directory}" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if executable else 0o644)
    found = packing.pack(base / "tree", base / "a.tar.zst", SPEC, level=1)
    unpacked(base / "a.tar.zst", base / "out", found.custom.unpacked_size, found.custom.unpacked_files)
    assert contents(base / "out") == contents(base / "tree")


ZSTD_BLOCK = 128 * 1024


@pytest.mark.parametrize("level", [1, packing.LEVEL])
@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("off", [-512, 0, 512])
def test_an_archive_may_end_where_a_compressed_block_ends(tmp_path: Path, level: int, blocks: int, off: int) -> None:
    """One release in 256 does; zstd then closes the frame with an empty block."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "data").write_bytes(os.urandom(blocks * ZSTD_BLOCK + off - 3 * tarfile.BLOCKSIZE))
    found = packing.pack(tmp_path / "tree", tmp_path / "a.tar.zst", SPEC, level=level)
    measured = artifact.measure(tmp_path / "a.tar.zst", "tar.zst")
    assert (measured.unpacked_size, measured.unpacked_files) == (found.custom.unpacked_size, 1)
    unpacked(tmp_path / "a.tar.zst", tmp_path / "out", found.custom.unpacked_size, found.custom.unpacked_files)
    assert contents(tmp_path / "out") == contents(tmp_path / "tree")


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


PLAIN = member("d", tarfile.DIRTYPE) + member("d/" + "n" * 120, data=b"x" * 40) + member("f", data=b"y") + bytes(1024)


def with_checksums(plain: bytearray) -> bytes:
    """Every block that may be a header gets the checksum that its bytes ask for."""
    for start in range(0, len(plain), 512):
        block = plain[start : start + 512]
        if block[257:262] == b"ustar":
            total = sum(block) - sum(block[148:156]) + 8 * 0x20
            plain[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(plain)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, len(PLAIN) - 1), st.one_of(st.sampled_from(list(b"\0 /.5x017d\x80")), st.integers(0, 255))
        ),
        max_size=3,
    ),
    cut=st.one_of(st.none(), st.integers(0, len(PLAIN))),
)
@example(edits=[(100, ord("4"))], cut=None)
@example(edits=[(157, ord("l"))], cut=None)
@example(edits=[(124, 0x80)], cut=None)
@example(edits=[(156, 0)], cut=None)
def test_a_device_unpacks_whatever_the_signer_accepts(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], cut: int | None
) -> None:
    base = tmp_path_factory.mktemp("agree")
    plain = bytearray(PLAIN)
    for at, byte in edits:
        plain[at] = byte
    path = base / "a.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor(level=1).compress(with_checksums(plain)[:cut]))
    try:
        measured = artifact.measure(path, "tar.zst")
    except ProtocolError as error:
        assert error.code in ("format", "archive")
    else:
        unpacked(path, base / "out", measured.unpacked_size, measured.unpacked_files)
