"""An artifact's own numbers, measured from its bytes and never taken from what is said of it."""

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import zstandard

from fleet_protocol.archive import WINDOW_SIZE, MemberNames
from fleet_protocol.catalogue import Format
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown

CHUNK: Final = 1024 * 1024
_BLOCK: Final = tarfile.BLOCKSIZE
_ZEROS: Final = bytes(_BLOCK)
_RLE: Final = 1
_RESERVED: Final = 3
_BLOCK_MOST: Final = 128 * 1024
_MAGIC: Final = b"ustar\x0000"
_OCTAL: Final = re.compile(rb"[0-7]{1,12}[ \0]*")
_SPECIAL_BITS: Final = 0o7000
_PADDING_MOST: Final = 1024 * 1024
_PAX_KEYS: Final = {"path", "size"}
_PAX_RECORD: Final = re.compile(rb"([1-9][0-9]{0,4}) ")
_PAX_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,14}")
_PAX_MOST: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Sizes in bytes; `unpacked_files` as `fleet_protocol.archive` counts them."""

    length: int
    sha256: str
    unpacked_size: int
    unpacked_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of an archive."""

    name: str
    directory: bool
    executable: bool
    size: int


def measure(path: Path, kind: Format) -> Measured:
    """Read the whole artifact and check it as a device would.

    Raises ProtocolError `archive` or `format`. Memory stays bounded whatever the file holds; a bomb costs time
    only, so give it what you packed.
    """
    digest, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            length += len(chunk)
    if kind == "raw":
        return Measured(length=length, sha256=digest.hexdigest(), unpacked_size=length, unpacked_files=1)
    size = files = 0
    for member in members(path):
        size += member.size
        files += 1
    return Measured(length=length, sha256=digest.hexdigest(), unpacked_size=size, unpacked_files=files)


def members(path: Path) -> Iterator[Member]:
    """Every member of a `tar.zst` artifact in order, checked by the rules of `fleet_protocol.archive`.

    Raises ProtocolError `format` or `archive`, at the latest after the last member.
    """
    with path.open("rb") as file:
        _check_one_frame(file, path.stat().st_size)
        file.seek(0)
        decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_SIZE)
        try:
            with decoder.stream_reader(file, closefd=False) as plain:
                yield from _walk(plain)
        except zstandard.ZstdError as error:
            raise ProtocolError("format", f"damaged zstd data: {error}") from None


def _check_one_frame(file: IO[bytes], size: int) -> None:
    """Rule 1, from the headers of the frame and its blocks (RFC 8878, section 3.1.1) alone."""
    head = file.read(18)
    try:
        frame = zstandard.get_frame_parameters(head)
        position = zstandard.frame_header_size(head)
    except zstandard.ZstdError:
        raise ProtocolError("format", "the artifact is not a zstd frame") from None
    if frame.window_size > WINDOW_SIZE or frame.dict_id:
        raise ProtocolError("format", f"the zstd window is {frame.window_size} bytes, at most {WINDOW_SIZE} may be")
    last = False
    while not last:
        file.seek(position)
        block = int.from_bytes(_exactly(file, 3), "little")
        last, kind, length = bool(block & 1), block >> 1 & 3, block >> 3
        if kind == _RESERVED or length > _BLOCK_MOST:
            raise ProtocolError("format", "a compressed block is not of its form")
        position += 3 + (1 if kind == _RLE else length)
    end = position + (4 if frame.has_checksum else 0)
    if end != size:
        raise ProtocolError("format", f"the zstd frame ends at byte {end}, the file at byte {size}")


def _walk(plain: IO[bytes]) -> Iterator[Member]:
    names = MemberNames()
    while (header := _exactly(plain, _BLOCK)) != _ZEROS:
        info = _header(header)
        long_name: dict[str, str] = {}
        if info.type == tarfile.XHDTYPE:
            long_name = _pax(_exactly(plain, _padded(_small(info.size)))[: info.size])
            info = _header(_exactly(plain, _BLOCK))
        member = _member(info, long_name)
        names.add(member.name, directory=member.directory)
        yield member
        _skip(plain, _padded(member.size))
    _check_end(plain)


def _header(block: bytes) -> tarfile.TarInfo:
    """One POSIX header, and no other dialect: `tarfile` alone would read several."""
    numbers = (block[100:108], block[124:136])
    if block[257:265] != _MAGIC or not all(_OCTAL.fullmatch(number) for number in numbers):
        raise ProtocolError("archive", "a tar header is not of the POSIX form")
    if any(field.partition(b"\0")[2].strip(b"\0") for field in (block[:100], block[157:257], block[345:500])):
        raise ProtocolError("archive", "a tar header hides something after a text")
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError):
        raise ProtocolError("archive", "damaged tar header") from None
    if info.type == tarfile.DIRTYPE and block[156:157] != tarfile.DIRTYPE:
        raise ProtocolError("archive", "a directory is not said to be one: `tarfile` guesses it from the name")
    return info


def _member(info: tarfile.TarInfo, pax: dict[str, str]) -> Member:
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
        raise ProtocolError("archive", f"{shown(info.name)} is neither a regular file nor a directory")
    if info.mode & _SPECIAL_BITS or info.linkname:
        raise ProtocolError("archive", f"{shown(info.name)} has special mode bits or a link's name")
    size = int(pax["size"]) if "size" in pax else info.size
    directory = info.type == tarfile.DIRTYPE
    if size < 0 or (directory and size):
        raise ProtocolError("archive", f"{shown(info.name)} has an impossible size")
    name = pax.get("path", info.name)
    name = name.removesuffix("/") if directory else name
    return Member(name=name, directory=directory, executable=bool(info.mode & 0o100), size=size)


def _pax(data: bytes) -> dict[str, str]:
    """The records of a pax header, each `length key=value\\n`; keys that we never write are refused."""
    found: dict[str, str] = {}
    while data:
        match = _PAX_RECORD.match(data)
        length = int(match[1]) if match else 0
        record, data = data[:length], data[length:]
        key, _, value = record.partition(b" ")[2].removesuffix(b"\n").partition(b"=")
        name = key.decode("ascii", "replace")
        if len(record) != length or not record.endswith(b"\n") or name not in _PAX_KEYS or name in found:
            raise ProtocolError("archive", "a pax header says more than a long name or size")
        found[name] = _text(value)
    if _PAX_SIZE.fullmatch(found.get("size", "0")) is None:
        raise ProtocolError("archive", "a pax size is not a number")
    return found


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("archive", "a name is not UTF-8") from None


def _check_end(plain: IO[bytes]) -> None:
    if _exactly(plain, _BLOCK) != _ZEROS:
        raise ProtocolError("archive", "the archive does not end with two zero blocks")
    seen = 0
    while rest := plain.read(CHUNK):
        seen += len(rest)
        if seen > _PADDING_MOST or rest.strip(b"\0"):
            raise ProtocolError("archive", "there is data after the end of the archive")


def _exactly(file: IO[bytes], count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = file.read(count - len(parts))
        if not part:
            raise ProtocolError("format", "the artifact ends too early")
        parts += part
    return parts


def _skip(file: IO[bytes], count: int) -> None:
    while count:
        count -= len(_exactly(file, min(count, CHUNK)))


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _small(size: int) -> int:
    if not 0 < size <= _PAX_MOST:
        raise ProtocolError("archive", "a pax header is too large")
    return size
