"""The unpacker by its rules: device_agent/installers/unpacking.py and fleet_protocol/archive.py."""

import io
import os
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.installers import tree_writer
from device_agent.installers.hashing import hash_lane
from device_agent.installers.tree import tree_digest
from device_agent.installers.tree_writer import TreeWriter
from device_agent.installers.unpacking import unpack
from device_agent.installers.verified_file import BLOCK
from fleet_protocol.errors import InstallError, ProtocolError
from tests.fakes import artifacts
from tests.fakes.artifacts import END, Artifact, header, hostile, member, packed, pax, planned_target, raw, zst

TREE = {
    "bin/run": b"#!" + bytes(200_000),
    "etc/app/conf.d/a": b"",
    "etc/app/b": b"b" * 512,
    "read me \u00fc.txt": b"\xff",
}


def unpacked(artifact: Artifact, root: Path, *, kind: str = "files") -> tuple[str, int]:
    """Unpack below `root`; the tree's digest as written, and how many bytes were there already."""
    (root / "cache").mkdir(exist_ok=True)
    slot = root / "slot"
    slot.mkdir(exist_ok=True)
    target = planned_target(artifact, kind=kind)  # type: ignore[arg-type]
    path = root / "cache" / artifact.sha256
    path.write_bytes(artifact.data)
    descriptor = os.open(slot, os.O_RDONLY)
    try:
        with hash_lane() as lane:
            writer = TreeWriter(descriptor, lane)
            try:
                unpack(path, target, "app", writer, lane)
            finally:
                writer.close()
        return writer.records.digest(), writer.bytes_kept
    finally:
        os.close(descriptor)


def refusal(artifact: Artifact, root: Path) -> str:
    """The code of the refusal; nothing outside the slot may have appeared."""
    with pytest.raises(ProtocolError) as caught:
        unpacked(artifact, root)
    assert sorted(path.name for path in root.iterdir()) == ["cache", "slot"]
    assert all(path.is_dir() or path.is_file() for path in (root / "slot").rglob("*"))
    assert not any(path.is_symlink() for path in (root / "slot").rglob("*"))
    return caught.value.code


def test_a_good_archive_becomes_its_tree(tmp_path: Path) -> None:
    digest, kept = unpacked(packed(TREE, {"bin/run": 0o755}), tmp_path)
    found = artifacts.read_tree(tmp_path / "slot")
    assert {name: content for name, (_, content) in found.items()} == artifacts.whole(TREE)
    assert found["bin/run"][0] == 0o755
    assert found["etc/app/b"][0] == 0o644
    assert found["etc"][0] == 0o755
    assert (digest, kept) == (tree_digest(tmp_path / "slot"), 0)


def test_many_files_of_all_sizes_have_the_digest_of_what_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones are hashed here, large ones beside, and their digests are asked for a few at a time."""
    monkeypatch.setattr(tree_writer, "_UNSETTLED", 3)
    sizes = [0, 1, 511, 65_535, 65_536, 65_537, 131_072, 300_000]
    artifact = packed({f"{number % 5}/{number}": os.urandom(sizes[number % len(sizes)]) for number in range(41)})
    digest, kept = unpacked(artifact, tmp_path)
    assert (digest, kept) == (tree_digest(tmp_path / "slot"), 0)
    assert unpacked(artifact, tmp_path) == (digest, artifact.unpacked_size)


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        unpacked(packed(TREE, {"bin/run": 0o700}), tmp_path)
    finally:
        os.umask(before)
    modes = {mode for mode, _ in artifacts.read_tree(tmp_path / "slot").values()}
    assert modes == {0o755, 0o644}


@pytest.mark.parametrize(("kind", "mode"), [("service", 0o755), ("files", 0o644)])
def test_a_raw_artifact_is_one_file_named_like_its_package(tmp_path: Path, kind: str, mode: int) -> None:
    digest, _ = unpacked(raw(b"x" * 700_000), tmp_path, kind=kind)
    assert artifacts.read_tree(tmp_path / "slot") == {"app": (mode, b"x" * 700_000)}
    assert digest == tree_digest(tmp_path / "slot")


def test_what_is_there_and_equal_is_not_written_again(tmp_path: Path) -> None:
    """Rule 2 of tree_writer: an interrupted stage is continued."""
    artifact = packed(TREE, {"bin/run": 0o755})
    first, _ = unpacked(artifact, tmp_path)
    victim = tmp_path / "slot/bin/run"
    victim.write_bytes(victim.read_bytes()[:131_072])
    before = victim.stat().st_ino
    again, kept = unpacked(artifact, tmp_path)
    assert (again, tree_digest(tmp_path / "slot"), victim.stat().st_ino) == (first, first, before)
    assert kept >= 65_536


def test_write_back_begins_early_and_no_part_is_told_of_more_than_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Telling the kernel of the whole file each time would take longer than writing it, where it is large."""
    told: list[int] = []
    advise = os.posix_fadvise

    def posix_fadvise(descriptor: int, start: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED:
            told.extend(range(start // BLOCK, (start + length) // BLOCK))
        advise(descriptor, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", posix_fadvise)
    monkeypatch.setattr(tree_writer, "_FLUSH", 4 * BLOCK)
    unpacked(raw(bytes(64 * BLOCK)), tmp_path)
    assert set(range(64)) <= set(told)
    assert max(told.count(block) for block in told) == 2


@pytest.mark.parametrize("spoil", [b"", b"#?", b"#!" + bytes(70_000) + b"x" * 130_000, bytes(300_000)])
def test_what_is_there_and_different_is_written_anew(tmp_path: Path, spoil: bytes) -> None:
    artifact = packed(TREE)
    (tmp_path / "slot/bin").mkdir(parents=True)
    (tmp_path / "slot/bin/run").write_bytes(spoil)
    digest, _ = unpacked(artifact, tmp_path)
    assert tree_digest(tmp_path / "slot") == digest


@pytest.mark.parametrize("link", ["symlink", "hardlink"])
def test_a_link_in_the_slot_is_never_written_through(tmp_path: Path, link: str) -> None:
    outside = tmp_path / "cache" / "outside"
    outside.parent.mkdir()
    outside.write_bytes(b"precious")
    (tmp_path / "slot/etc/app").mkdir(parents=True)
    place = tmp_path / "slot/etc/app/b"
    place.symlink_to(outside) if link == "symlink" else place.hardlink_to(outside)
    digest, _ = unpacked(packed(TREE), tmp_path)
    assert outside.read_bytes() == b"precious"
    assert tree_digest(tmp_path / "slot") == digest


def test_a_directory_in_the_slot_that_is_a_link_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "slot").mkdir()
    (tmp_path / "slot/bin").symlink_to(tmp_path / "cache")
    with pytest.raises((InstallError, OSError)):
        unpacked(packed(TREE), tmp_path)
    assert len(list((tmp_path / "cache").iterdir())) == 1


NAMES = [
    "../out",
    "a/../../out",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a//b",
    "./a",
    "a/./b",
    "back\\slash",
    "new\nline",
    "bell\x07",
    "right\u202eleft",
    "e\u0301",
    "x" * 256,
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_refused(tmp_path: Path, name: str) -> None:
    """Attack B6, archive rule 4; by a pax header, which can carry any of them."""
    stream = member("a", kind=b"5", mode=0o755) + pax([("path", name)]) + member("short", b"x") + END
    assert refusal(hostile(stream), tmp_path) == "archive"


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../b", ".."])
def test_odd_names_are_refused_in_plain_headers(tmp_path: Path, name: str) -> None:
    assert refusal(hostile(member(name, b"x") + END), tmp_path) == "archive"
    assert refusal(hostile(member("x", b"x", prefix=name.encode()) + END), tmp_path) == "archive"


TWINS = [("readme", "README"), ("stra\u00dfe", "strasse"), ("\ufb01le", "file"), ("k", "\u212a"), ("same", "same")]


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_twins_are_refused(tmp_path: Path, one: str, other: str) -> None:
    """Attack B6, archive rule 5."""
    assert refusal(hostile(artifacts.tar({one: b"1"})[:-1024] + artifacts.tar({other: b"2"})), tmp_path) == "archive"


def test_a_file_comes_after_its_directory(tmp_path: Path) -> None:
    """Archive rule 6."""
    assert refusal(hostile(member("a/b", b"x") + END), tmp_path) == "archive"
    stream = member("a", b"file") + member("a/b", b"x") + END
    (tmp_path / "second").mkdir()
    assert refusal(hostile(stream), tmp_path / "second") == "archive"


@pytest.mark.parametrize("kind", [bytes([kind]) for kind in range(1, 256) if bytes([kind]) not in (b"0", b"5")])
def test_only_files_and_directories(tmp_path: Path, kind: bytes) -> None:
    """Attack B7: links, devices, sparse files, GNU and vendor extensions: every type byte but two."""
    assert refusal(hostile(member("m", b"", kind=kind, linkname=b"/etc/passwd") + END), tmp_path) == "archive"
    assert refusal(hostile(member("m", b"", kind=kind) + END), tmp_path) == "archive"


@pytest.mark.parametrize(
    "records",
    [
        [("linkpath", "/etc/passwd")],
        [("path", "a"), ("path", "b")],
        [("GNU.sparse.major", "1")],
        [("SCHILY.xattr.security.capability", "x")],
        [("size", "-1")],
        [("size", "1e9")],
        [("size", "0x10")],
        [("size", "99999999999999999999")],
        [("hdrcharset", "BINARY")],
        [("mtime", "1")],
    ],
)
def test_pax_headers_say_path_and_size_only(tmp_path: Path, records: list[tuple[str, str]]) -> None:
    assert refusal(hostile(pax(records) + member("m", b"x") + END), tmp_path) == "archive"


@pytest.mark.parametrize(
    "data",
    [
        b"0 path=a\n",
        b"9 path=a\n",
        b"11 path=a\n",
        b"100 path=a\n",
        b"10 path=a\x00",
        b"path=a\n",
        b"\0" * 10,
        b"3 a\n",
    ],
)
def test_pax_records_are_of_their_form(tmp_path: Path, data: bytes) -> None:
    assert refusal(hostile(member("p", data, kind=b"x") + member("m", b"x") + END), tmp_path) == "archive"


def test_pax_headers_do_not_pile_up(tmp_path: Path) -> None:
    long = pax([("path", "a" * 200)])
    assert refusal(hostile(long + long + member("m", b"x") + END), tmp_path) == "archive"
    (tmp_path / "2").mkdir()
    assert refusal(hostile(long + END), tmp_path / "2") == "archive"
    (tmp_path / "3").mkdir()
    assert refusal(hostile(header("p", 10**9, b"x") + END), tmp_path / "3") == "archive"
    (tmp_path / "4").mkdir()
    assert refusal(hostile(pax([("path", "a")], kind=b"g") + member("m", b"x") + END), tmp_path / "4") == "archive"


@pytest.mark.parametrize(
    "fields",
    [
        {"magic": b"ustar  \0"},
        {"magic": bytes(8)},
        {"checksum": b"0000000\0"},
        {"checksum": b"zzzzzz\0 "},
        {"size_field": b"\x80" + bytes(10) + b"\1"},
        {"size_field": b"-0000000001\0"},
        {"size_field": b"            "},
        {"mode_field": b"0004755\0"},
        {"mode_field": b"0002755\0"},
        {"raw_name": b"a\0hidden"},
        {"raw_name": b"\xff\xfe"},
        {"linkname": b"x"},
    ],
)
def test_headers_are_of_their_form(tmp_path: Path, fields: dict[str, bytes]) -> None:
    assert refusal(hostile(header("m", **fields) + END), tmp_path) == "archive"


def test_a_directory_has_no_size(tmp_path: Path) -> None:
    assert refusal(hostile(member("d", b"x", kind=b"5") + END), tmp_path) == "archive"


@pytest.mark.parametrize("cut", [1, 511, 512, 513, 1_000, 1_024, 1_025, 1_535, 2_047])
def test_the_archive_has_an_end(tmp_path: Path, cut: int) -> None:
    stream = member("a", b"x" * 300) + END
    assert len(stream) == 2_048
    assert refusal(hostile(stream[:cut], size=300, files=1), tmp_path) == "archive"


def test_nothing_but_zeros_follows_the_end(tmp_path: Path) -> None:
    """Attack B4, archive rule 2."""
    good = member("a", b"x")
    padded = Artifact(zst(good + END + bytes(8_192)), 1, 1)
    unpacked(padded, tmp_path)
    for tail in (b"x", bytes(511) + b"x", member("b", b"y") + END, bytes(2 * 1024 * 1024)):
        assert refusal(hostile(good + END + tail, size=2, files=2), tmp_path) == "archive"


@pytest.mark.parametrize(("size", "files"), [(2, 2), (4, 2), (3, 1), (3, 3), (0, 0)])
def test_the_signed_numbers_are_exact(tmp_path: Path, size: int, files: int) -> None:
    """Attack B8, rule 1."""
    stream = artifacts.tar({"a": b"1", "b": b"23"})
    assert refusal(hostile(stream, size=size, files=files), tmp_path) == "archive"


def test_a_bomb_is_stopped_at_its_header(tmp_path: Path) -> None:
    """Attack B8: 1 GiB of zeros in about 32 KiB; nothing of it is unpacked."""
    packer = zstandard.ZstdCompressor().compressobj()
    data = packer.compress(header("bomb", 2**30))
    for _ in range(1_024):
        data += packer.compress(bytes(2**20))
    bomb = Artifact(data + packer.flush(), 1_000, 10)
    assert refusal(bomb, tmp_path) == "archive"
    assert list((tmp_path / "slot").iterdir()) == []


FRAME = zst(artifacts.tar({"a": b"1" * 1_000}), checksum=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x28\xb5\x2f\xfd",
        FRAME[:-1],
        FRAME[:-5],
        FRAME[:20],
        FRAME[:-1] + bytes([FRAME[-1] ^ 1]),
        FRAME + b"\0",
        FRAME + FRAME,
        FRAME + zst(b""),
        FRAME + b"\x50\x2a\x4d\x18\x04\0\0\0skip",
        b"\x50\x2a\x4d\x18\x04\0\0\0skip" + FRAME,
        b"\x1f\x8b" + FRAME,
        artifacts.tar({"a": b"1" * 1_000}),
    ],
)
def test_an_artifact_is_one_frame_and_nothing_else(tmp_path: Path, data: bytes) -> None:
    """Attack B4, archive rule 1."""
    assert refusal(Artifact(data, 1_000, 1), tmp_path) == "format"


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_blocks_may_be_empty_the_last_one_too(tmp_path: Path, checksum: bool, parts: int) -> None:
    """A raw block of no bytes is well formed (RFC 8878, 3.1.1.2)."""
    stream = artifacts.tar({"a": b"1" * 1_000})
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=20, write_checksum=checksum)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = b""
    for start in range(0, len(stream), -(-len(stream) // parts)):
        frame += packer.compress(stream[start : start + -(-len(stream) // parts)])
        frame += packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    frame += packer.flush()
    last = frame[: len(frame) - 4 * checksum][-3:]
    assert last == b"\1\0\0", "the last block is empty"
    unpacked(Artifact(frame, 1_000, 1), tmp_path)
    assert (tmp_path / "slot" / "a").read_bytes() == b"1" * 1_000
    assert refusal(Artifact(frame[:-1], 1_000, 1), tmp_path) == "format"
    assert refusal(Artifact(frame + last, 1_000, 1), tmp_path) == "format"


def test_a_large_window_is_refused(tmp_path: Path) -> None:
    """Archive rule 1: the window is memory."""
    noise = os.urandom(1_000)
    artifact = Artifact(zst(artifacts.tar({"a": noise}), window_log=24), 1_000, 1)
    assert refusal(artifact, tmp_path) == "format"
    unpacked(Artifact(zst(artifacts.tar({"a": noise}), window_log=23), 1_000, 1), tmp_path)


def test_a_dictionary_is_refused(tmp_path: Path) -> None:
    frame = bytearray(FRAME)
    frame[4] |= 1
    frame[6:6] = b"\x07"
    assert refusal(Artifact(bytes(frame), 1_000, 1), tmp_path) == "format"


def test_an_altered_artifact_is_a_wrong_digest_whatever_the_parser_says(tmp_path: Path) -> None:
    """Attack B9, rule 3."""
    good = packed(TREE)
    target_of = Artifact(good.data, good.unpacked_size, good.unpacked_files)
    (tmp_path / "cache").mkdir()
    (tmp_path / "slot").mkdir()
    path = tmp_path / "cache/file"
    descriptor = os.open(tmp_path / "slot", os.O_RDONLY)
    try:
        for offset in range(0, len(good.data), 7):
            data = bytearray(good.data)
            data[offset] ^= 0x10
            path.write_bytes(data)
            with hash_lane() as lane, pytest.raises(ProtocolError) as caught:
                writer = TreeWriter(descriptor, lane)
                try:
                    unpack(path, planned_target(target_of), "app", writer, lane)
                finally:
                    writer.close()
            assert caught.value.code == "digest"
    finally:
        os.close(descriptor)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    position=st.integers(0, 4_000),
    value=st.binary(min_size=1, max_size=24),
    cut=st.integers(0, 600),
)
def test_a_damaged_stream_never_gets_out(tmp_path_factory: pytest.TempPathFactory, position, value, cut) -> None:  # type: ignore[no-untyped-def]
    """Damage at any offset: either a tree of plain files inside the slot, or a refusal."""
    root = tmp_path_factory.mktemp("damage")
    stream = bytearray(artifacts.tar({"d/e/f": b"x" * 700, "d/g": b"y", "h" * 120: b"z"}))
    stream[position : position + len(value)] = value
    artifact = hostile(bytes(stream[: len(stream) - cut]), size=701 + 1, files=5)
    try:
        digest, _ = unpacked(artifact, root)
    except ProtocolError as error:
        assert error.code in ("archive", "format")
    else:
        assert tree_digest(root / "slot") == digest
    assert sorted(path.name for path in root.iterdir()) == ["cache", "slot"]


NAME = st.text(st.sampled_from("aA.-_/\\ \u00e9\u0301\u0131"), min_size=1, max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(names=st.lists(NAME, min_size=1, max_size=6), kinds=st.lists(st.sampled_from("05125"), min_size=6, max_size=6))
def test_generated_archives_stay_inside(tmp_path_factory: pytest.TempPathFactory, names, kinds) -> None:  # type: ignore[no-untyped-def]
    root = tmp_path_factory.mktemp("names")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind in zip(names, kinds, strict=False):
            info = tarfile.TarInfo(name)
            info.type = kind.encode()
            info.linkname = "/etc/passwd" if kind in "12" else ""
            archive.addfile(info)
    artifact = hostile(out.getvalue(), size=0, files=len(names))
    try:
        digest, _ = unpacked(artifact, root)
    except ProtocolError as error:
        assert error.code == "archive"
    else:
        assert tree_digest(root / "slot") == digest
    assert sorted(path.name for path in root.iterdir()) == ["cache", "slot"]
