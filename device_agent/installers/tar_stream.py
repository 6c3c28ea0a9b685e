"""Reads a POSIX tar stream by an allow-list: ustar headers, pax headers for long names and sizes, nothing else.

`tarfile` knows a dozen dialects and has been led outside its target by several; here everything that is not one of
the two kinds of member that `fleet_protocol.archive` allows is refused where it stands.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fleet_protocol.errors import ProtocolError

_BLOCK: Final = 512
_ZEROS: Final = bytes(_BLOCK)
_MAGIC: Final = b"ustar\x0000"
_OCTAL: Final = re.compile(rb"([0-7]{1,12})[ \0]*")
_PAX_MOST: Final = 8 * 1024
_PAX_RECORD: Final = re.compile(rb"([1-9][0-9]{0,4}) ([a-z]+)=")
_PADDING_MOST: Final = 1024 * 1024
"""tar pads to its record size, 10 KiB by default."""
_FILE, _DIRECTORY, _PAX = (b"0", b"\0"), b"5", b"x"
_SPECIAL_BITS: Final = 0o7000


@dataclass(frozen=True, slots=True)
class Member:
    """One member's header. The name is not checked yet; `mode` is 0644 or 0755."""

    name: str
    directory: bool
    mode: int
    size: int


class TarStream:
    """Members in order; each one's content must be read before the next member."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")
        self._left = 0
        """Bytes of the present member's content that nobody has read."""

    def members(self) -> Iterator[Member]:
        """Every member up to the end of the archive, which must be whole, with nothing but zeros after it.

        Raises ProtocolError `archive`.
        """
        while (block := self._exact(_BLOCK)) != _ZEROS:
            member = self._member(block)
            self._left = member.size
            yield member
            if self._left:
                raise ValueError("a member's content was left unread")
            self._exact(-member.size % _BLOCK)
        self._end()

    def content(self) -> Iterator[memoryview]:
        """The present member's content, in pieces."""
        while self._left:
            piece = self._some(self._left)
            if not piece:
                raise ProtocolError("archive", "the archive ends inside a file")
            self._left -= len(piece)
            yield piece

    def _member(self, block: bytes) -> Member:
        pax: dict[str, str] = {}
        if _type(block) == _PAX:
            pax = self._pax(block)
            block = self._exact(_BLOCK)
            if _type(block) == _PAX:
                raise ProtocolError("archive", "two extended headers for one member")
        kind = _type(block)
        if kind not in (*_FILE, _DIRECTORY):
            raise ProtocolError("archive", f"a member of type {kind!r}: only files and directories are allowed")
        size = _pax_size(pax["size"]) if "size" in pax else _octal(block, 124, 12)
        name = pax["path"] if "path" in pax else _name(block)
        directory, mode = kind == _DIRECTORY, _octal(block, 100, 8)
        if mode & _SPECIAL_BITS or _text(block, 157, 100) or (directory and size):
            raise ProtocolError("archive", "a member with special mode bits, a link name or a directory's size")
        if directory:
            name = name.removesuffix("/")
        return Member(name, directory, 0o755 if directory or mode & 0o100 else 0o644, size)

    def _pax(self, block: bytes) -> dict[str, str]:
        size = _octal(block, 124, 12)
        if size > _PAX_MOST:
            raise ProtocolError("archive", "an extended header is too long")
        data = self._exact(size)
        self._exact(-size % _BLOCK)
        records: dict[str, str] = {}
        while data:
            key, value, data = _pax_record(data)
            if key in records or key not in ("path", "size"):
                raise ProtocolError("archive", f"an extended header sets {key}")
            records[key] = value
        return records

    def _end(self) -> None:
        if self._exact(_BLOCK) != _ZEROS:
            raise ProtocolError("archive", "the archive has no end")
        seen = 0
        while piece := self._some(_PADDING_MOST):
            seen += len(piece)
            if seen > _PADDING_MOST or bytes(piece).strip(b"\0"):
                raise ProtocolError("archive", "there is data after the end of the archive")

    def _some(self, most: int) -> memoryview:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        piece, self._rest = self._rest[:most], self._rest[most:]
        return piece

    def _exact(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._some(size - len(data))
            if not piece:
                raise ProtocolError("archive", "the archive ends early")
            data += piece
        return data


def _type(block: bytes) -> bytes:
    """The member's type, once magic and checksum say that this is a header."""
    if block[257:265] != _MAGIC:
        raise ProtocolError("archive", "a header is not POSIX tar")
    if _octal(block, 148, 8) != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise ProtocolError("archive", "a header's checksum is wrong")
    return block[156:157]


def _octal(block: bytes, start: int, size: int) -> int:
    found = _OCTAL.fullmatch(block[start : start + size])
    if found is None:
        raise ProtocolError("archive", "a header's number is not octal")
    return int(found[1], 8)


def _text(block: bytes, start: int, size: int) -> str:
    field, _, rest = block[start : start + size].partition(b"\0")
    if rest.strip(b"\0"):
        raise ProtocolError("archive", "a header hides something after a text")
    return _utf8(field)


def _name(block: bytes) -> str:
    name, prefix = _text(block, 0, 100), _text(block, 345, 155)
    return f"{prefix}/{name}" if prefix else name


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("archive", "a name is not UTF-8") from None


def _pax_record(data: bytes) -> tuple[str, str, bytes]:
    """Key, value and what follows, of `<length> <key>=<value>\\n` (POSIX pax, "Extended Header")."""
    found = _PAX_RECORD.match(data)
    if found is None:
        raise ProtocolError("archive", "an extended header is not of its form")
    length = int(found[1])
    record, rest = data[:length], data[length:]
    if len(record) != length or length <= found.end() or not record.endswith(b"\n"):
        raise ProtocolError("archive", "an extended header is not of its form")
    return _utf8(found[2]), _utf8(record[found.end() : -1]), rest


def _pax_size(text: str) -> int:
    if re.fullmatch(r"0|[1-9][0-9]{0,14}", text) is None:
        raise ProtocolError("archive", "an extended header's size is not a number")
    return int(text)
