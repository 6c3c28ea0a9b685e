"""What a .deb says of itself: good ones of every kind, and hostile ones byte by byte (deb(5))."""

import gzip
import hashlib
import io
import lzma
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from firmware_tools import deb_file
from fleet_protocol.errors import PolicyError
from tests.fakes.debian import NEEDS_DPKG, make_deb

CONTROL = (
    "Package: tool\nVersion: 1:2.0-1\nArchitecture: arm64\nDepends: libc6 (>= 2.36),\n libz\n"
    "Description: short\n long\n"
)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def control_tar(content: str | bytes = CONTROL, name: str = "./control", kind: bytes = tarfile.REGTYPE) -> bytes:
    out = io.BytesIO()
    data = content.encode() if isinstance(content, str) else content
    with tarfile.open(fileobj=out, mode="w") as tar:
        other = tarfile.TarInfo("./md5sums")
        tar.addfile(other)
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(data) if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(name: str, data: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return header + data + b"\n" * (len(data) % 2)


def deb(*members: tuple[str, bytes], end: bytes = b"") -> bytes:
    return b"!<arch>\n" + b"".join(member(name, data) for name, data in members) + end


def good(end: str = ".gz", control: bytes | None = None) -> list[tuple[str, bytes]]:
    packed = PACKERS[end](control_tar() if control is None else control)
    return [("debian-binary", b"2.0\n"), (f"control.tar{end}", packed), ("data.tar.xz", b"whatever")]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "tool.deb"


@pytest.mark.parametrize("end", PACKERS)
def test_the_fields_of_every_compression(place: Path, end: str) -> None:
    place.write_bytes(deb(*good(end)))
    found = deb_file.read(place)
    assert (found.name, found.version, found.architecture) == ("tool", "1:2.0-1", "arm64")
    assert found.sha256 == hashlib.sha256(place.read_bytes()).hexdigest()
    assert found.fields["depends"] == "libc6 (>= 2.36),\nlibz"


@NEEDS_DPKG
def test_what_dpkg_deb_makes(place: Path) -> None:
    place.write_bytes(make_deb("tool", "1.0~rc1", architecture="armhf", pre_depends="libc6").data)
    found = deb_file.read(place)
    told = subprocess.run(["dpkg-deb", "--field", str(place)], check=True, capture_output=True, text=True).stdout
    assert found.fields == deb_file.paragraph(told)


def test_members_of_others_are_passed_over(place: Path) -> None:
    place.write_bytes(deb(*good(), ("_gpgorigin", b"signature")))
    assert deb_file.read(place).name == "tool"


BAD = {
    "no archive": b"PK\3\4",
    "empty": b"",
    "no members": deb(),
    "no data": deb(*good()[:2]),
    "no control": deb(good()[0], good()[2]),
    "another order": deb(good()[0], good()[2], good()[1]),
    "another format": deb(("debian-binary", b"3.0\n"), *good()[1:]),
    "something more": deb(*good(), ("more", b"")),
    "a member twice": deb(*good(), good()[2]),
    "bytes at the end": deb(*good(), end=b"xx"),
    "cut off": deb(*good())[:-4],
    "an odd compression": deb(good()[0], ("control.tar.bz2", b""), good()[2]),
    "damaged gzip": deb(good()[0], ("control.tar.gz", b"\x1f\x8bxx"), good()[2]),
    "damaged xz": deb(good()[0], ("control.tar.xz", b"xx"), good()[2]),
    "damaged zstd": deb(good()[0], ("control.tar.zst", b"xx"), good()[2]),
    "cut gzip": deb(good()[0], ("control.tar.gz", gzip.compress(control_tar())[:-20]), good()[2]),
    "a bomb": deb(good()[0], ("control.tar.xz", lzma.compress(bytes(64 * 1024 * 1024))), good()[2]),
    "no control file": deb(*good(control=control_tar(name="./other"))),
    "a link": deb(*good(control=control_tar(kind=tarfile.SYMTYPE))),
    "a huge control file": deb(*good(control=control_tar(b"x" * (1024 * 1024 + 1)))),
    "no text": deb(*good(control=control_tar(b"Package: \xff\n"))),
    "a field twice": deb(*good(control=control_tar(CONTROL + "Package: other\n"))),
    "no field": deb(*good(control=control_tar("just text\n"))),
    "no version": deb(*good(control=control_tar("Package: tool\nArchitecture: all\n"))),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_no_sound_package_is_refused(place: Path, data: bytes) -> None:
    place.write_bytes(data)
    with pytest.raises(PolicyError) as found:
        deb_file.read(place)
    assert found.value.code == "bad-request"
    assert str(place) in found.value.detail
    assert "\n" not in found.value.detail


def test_every_cut_and_every_byte(place: Path) -> None:
    """Refused, or read as what it says: never another exception."""
    whole = deb(*good())
    for at in range(len(whole)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]):
            place.write_bytes(data)
            try:
                deb_file.read(place)
            except PolicyError as error:
                assert error.code == "bad-request"


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        deb_file.read(tmp_path / "none.deb")
