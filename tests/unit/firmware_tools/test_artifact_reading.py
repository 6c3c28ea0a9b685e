"""Reading an artifact back: every rule of fleet_protocol.archive, broken on purpose."""

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware_tools import artifact
from fleet_protocol.archive import WINDOW_SIZE
from fleet_protocol.errors import ProtocolError


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", linkname: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), linkname
    return info.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512)


END = bytes(1024)
GOOD = member("d", tarfile.DIRTYPE) + member("d/f", data=b"x" * 700) + END


def packed(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


def read(tmp_path: Path, data: bytes) -> list[str]:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(data)
    artifact.measure(path, "tar.zst")
    return [found.name for found in artifact.members(path)]


def code(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        read(tmp_path, data)
    return caught.value.code


def test_a_good_archive_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, packed(GOOD)) == ["d", "d/f"]
    assert read(tmp_path, packed(END)) == []
    assert read(tmp_path, packed(GOOD + bytes(8_192))) == ["d", "d/f"], "padding to a record is usual"


@pytest.mark.parametrize(
    ("rule", "data", "expected"),
    [
        (1, b"not zstd at all, but long enough to look at", "format"),
        (1, b"", "format"),
        (1, packed(GOOD) + b"\0", "format"),
        (1, packed(GOOD) + packed(GOOD), "format"),
        (1, packed(GOOD)[:-1], "format"),
        (1, b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + packed(GOOD), "format"),
        (2, packed(GOOD[:-512]), "format"),
        (2, packed(GOOD[:-1024]), "format"),
        (2, packed(GOOD[:700]), "format"),
        (2, packed(GOOD + b"x" * 512), "archive"),
        (2, packed(GOOD[:-512] + b"x" * 512), "archive"),
        (2, packed(b"x" * 512 + GOOD), "archive"),
        (3, packed(member("l", tarfile.SYMTYPE, linkname="/etc/passwd") + END), "archive"),
        (3, packed(member("l", tarfile.LNKTYPE, linkname="d") + END), "archive"),
        (3, packed(member("c", tarfile.CHRTYPE) + END), "archive"),
        (3, packed(member("b", tarfile.BLKTYPE) + END), "archive"),
        (3, packed(member("p", tarfile.FIFOTYPE) + END), "archive"),
        (3, packed(member("s", tarfile.GNUTYPE_SPARSE) + END), "archive"),
        (3, packed(member("l", tarfile.GNUTYPE_LONGNAME, b"name") + END), "archive"),
        (3, packed(member("g", tarfile.XGLTYPE, b"9 path=a\n") + END), "archive"),
        (4, packed(member("../x") + END), "archive"),
        (4, packed(member("/x") + END), "archive"),
        (4, packed(member("./x") + END), "archive"),
        (4, packed(member("a//b") + END), "archive"),
        (4, packed(member("a/../b") + END), "archive"),
        (4, packed(member("a\\b") + END), "archive"),
        (4, packed(member("a\x01b") + END), "archive"),
        (4, packed(member("x" * 256) + END), "archive"),
        (4, packed(member("e\u0301") + END), "archive"),
        (4, packed(member("a\u202eb") + END), "archive"),
        (5, packed(member("f") + member("f") + END), "archive"),
        (5, packed(member("f") + member("F") + END), "archive"),
        (5, packed(member("f", tarfile.DIRTYPE) + member("f") + END), "archive"),
        (6, packed(member("d/f") + END), "archive"),
        (6, packed(member("d") + member("d/f") + END), "archive"),
    ],
)
def test_a_broken_rule_is_refused(tmp_path: Path, rule: int, data: bytes, expected: str) -> None:
    assert code(tmp_path, data) == expected


def test_a_window_that_a_device_cannot_afford_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(GOOD + bytes(2 * WINDOW_SIZE)) + compressor.flush()
    assert code(tmp_path, data) == "format"


def test_pax_headers_say_only_names_and_sizes(tmp_path: Path) -> None:
    info = tarfile.TarInfo("plain")
    info.pax_headers = {"path": "d/" + "n" * 150}
    good = member("d", tarfile.DIRTYPE) + info.tobuf(tarfile.PAX_FORMAT) + END
    assert read(tmp_path, packed(good))[1] == "d/" + "n" * 150
    for bad in ({"linkpath": "/etc"}, {"GNU.sparse.size": "9"}, {"size": "-1"}, {"size": "x"}, {"path": "../up"}):
        info.pax_headers = bad
        assert code(tmp_path, packed(info.tobuf(tarfile.PAX_FORMAT) + END)) == "archive"


def _pax_blocks(records: bytes) -> bytes:
    return member("x", tarfile.XHDTYPE, records)


@pytest.mark.parametrize(
    "records", [b"9 path=a", b"99 path=a\n", b"x", b"9 path=a\n9 path=b\n", b"0 path=a\n", b"11 path=\xff\xfe\n", b""]
)
def test_a_damaged_pax_header_is_refused(tmp_path: Path, records: bytes) -> None:
    assert code(tmp_path, packed(_pax_blocks(records) + member("f") + END)) == "archive"


def test_a_member_that_claims_more_than_there_is_ends_early(tmp_path: Path) -> None:
    info = tarfile.TarInfo("f")
    info.size = 10**12
    assert code(tmp_path, packed(info.tobuf(tarfile.PAX_FORMAT) + END)) == "format"


def _flip(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(at=st.integers(0, len(packed(GOOD)) - 1), bit=st.integers(0, 7))
def test_damage_is_an_error_with_a_code_or_another_digest(tmp_path: Path, at: int, bit: int) -> None:
    """Whatever bit is wrong: no exception without a code, and never the same digest."""
    path = tmp_path / "a.tar.zst"
    path.write_bytes(packed(GOOD))
    before = artifact.measure(path, "tar.zst").sha256
    path.write_bytes(_flip(packed(GOOD), at, bit))
    try:
        assert artifact.measure(path, "tar.zst").sha256 != before
    except ProtocolError as error:
        assert error.code in ("format", "archive")


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.binary(max_size=3_000))
def test_any_tar_bytes_end_in_a_code(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar.zst"
    path.write_bytes(packed(data))
    try:
        artifact.measure(path, "tar.zst")
    except ProtocolError as error:
        assert error.code in ("format", "archive")


def test_a_bomb_is_measured_in_bounded_memory(tmp_path: Path) -> None:
    """64 MiB of zeros in a few kilobytes: read through, never held."""
    chunks: Iterable[bytes] = (bytes(1024 * 1024) for _ in range(64))
    info = tarfile.TarInfo("zeros")
    info.size = 64 * 1024 * 1024
    plain = io.BytesIO()
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=20)
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(plain, closefd=False) as out:
        out.write(info.tobuf(tarfile.PAX_FORMAT))
        for chunk in chunks:
            out.write(chunk)
        out.write(END)
    path = tmp_path / "a.tar.zst"
    path.write_bytes(plain.getvalue())
    assert path.stat().st_size < 100_000
    assert artifact.measure(path, "tar.zst").unpacked_size == info.size


def test_raw_needs_no_form(tmp_path: Path, make_artifact: Callable[..., Path]) -> None:
    found = artifact.measure(make_artifact(), "raw")
    assert found.unpacked_size == found.length
