"""What a .deb says of itself (deb(5), deb-control(5)), read strictly and within bounds.

1. The outer archive is a `debian-binary` 2.x, a control and a data member in this order, and ends with the file;
   members whose names begin with `_` are passed over, as dpkg does.
2. Only the control paragraph is unpacked, and no more of the control archive than CONTROL_MOST.
3. Nothing of the package is run, and its data is hashed but not looked into.
"""

import gzip
import hashlib
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import zstandard

from fleet_protocol.archive import WINDOW_SIZE
from fleet_protocol.errors import PolicyError
from fleet_protocol.ids import shown

CONTROL_MOST: Final = 16 * 1024 * 1024
_PARAGRAPH_MOST: Final = 1024 * 1024
_MAGIC: Final = b"!<arch>\n"
_HEADER: Final = re.compile(rb"([^ ]{1,16}) *\d{1,12} *\d{0,6} *\d{0,6} *[0-7]{1,8} *(\d{1,10}) *`\n")
_FIELD: Final = re.compile(r"([!-9;-~]+):[ \t]*(.*)")
_UNPACKERS: Final[Mapping[str, Callable[[IO[bytes]], Any]]] = {
    "control.tar": lambda packed: packed,
    "control.tar.gz": gzip.open,
    "control.tar.xz": lzma.open,
    "control.tar.zst": lambda packed: zstandard.ZstdDecompressor(max_window_size=WINDOW_SIZE).stream_reader(packed),
}
_FAULTS: Final = (EOFError, OSError, lzma.LZMAError, zlib.error, zstandard.ZstdError, tarfile.TarError, UnicodeError)
"""What unpacking damaged data may raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DebFile:
    """One .deb. `fields` are those of its control paragraph, by their names in lower case."""

    name: str
    version: str
    architecture: str
    sha256: str
    fields: Mapping[str, str]


def read(path: Path) -> DebFile:
    """What is at `path`. Raises PolicyError `bad-request` where it is no sound .deb."""
    try:
        with path.open("rb") as file:
            fields = paragraph(_control(file))
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        name, version, architecture = (fields[field] for field in ("package", "version", "architecture"))
    except KeyError as error:
        raise PolicyError("bad-request", f"{path}: its control file has no {error.args[0]}") from None
    except ValueError as error:
        raise PolicyError("bad-request", f"{path} is not a Debian package: {error}") from None
    except OSError as error:
        raise PolicyError("bad-request", f"{path}: {error.strerror or error}") from None
    return DebFile(name=name, version=version, architecture=architecture, sha256=sha256, fields=fields)


def paragraph(text: str) -> dict[str, str]:
    """The fields of one paragraph; ValueError where it is not of its form."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        found = _FIELD.fullmatch(line)
        if line.startswith((" ", "\t")) and name:
            fields[name] += "\n" + line.strip()
        elif found is None or found[1].lower() in fields:
            raise ValueError(f"{shown(line)} is not a field, or is there twice")
        else:
            name = found[1].lower()
            fields[name] = found[2].strip()
    return fields


def _control(file: IO[bytes]) -> str:
    """Rules 1 and 2."""
    members = dict(_members(file))
    names = list(members)
    if len(names) != 3 or names[0] != "debian-binary" or not names[1].startswith("control.tar"):
        raise ValueError(f"its members are {', '.join(map(shown, names)) or 'none'}")
    if not names[2].startswith("data.tar"):
        raise ValueError(f"{shown(names[2])} stands where the data should")
    if not _member(file, members[names[0]]).startswith(b"2."):
        raise ValueError("it is of another format than 2.0")
    try:
        return _paragraph(_unpacked(names[1], _member(file, members[names[1]])))
    except _FAULTS as error:
        raise ValueError(f"{names[1]}: {error}") from None


def _members(file: IO[bytes]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, and place and size, of each member that counts."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is no archive")
    end = file.seek(0, io.SEEK_END)
    place, seen = len(_MAGIC), set[str]()
    while place < end:
        file.seek(place)
        found = _HEADER.fullmatch(file.read(60))
        if found is None:
            raise ValueError(f"there is no member at byte {place}")
        name, size = found[1].decode("ascii", "replace").rstrip("/"), int(found[2])
        if name in seen or place + 60 + size > end:
            raise ValueError(f"{shown(name)} is there twice, or does not end")
        seen.add(name)
        if not name.startswith("_"):
            yield name, (place + 60, size)
        place += 60 + size + size % 2


def _member(file: IO[bytes], where: tuple[int, int]) -> bytes:
    place, size = where
    if size > CONTROL_MOST:
        raise ValueError("its control archive is too large")
    file.seek(place)
    return file.read(size)


def _unpacked(name: str, data: bytes) -> bytes:
    unpack = _UNPACKERS.get(name)
    if unpack is None:
        raise ValueError(f"{shown(name)} is compressed in a way that is not known")
    with unpack(io.BytesIO(data)) as plain:
        found: bytes = plain.read(CONTROL_MOST + 1)
    if len(found) > CONTROL_MOST:
        raise ValueError("its control archive unpacks to too much")
    return found


def _paragraph(data: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for info in tar:
            if info.name.removeprefix("./") == "control":
                file = tar.extractfile(info) if info.isreg() and info.size <= _PARAGRAPH_MOST else None
                if file is None:
                    break
                return file.read().decode("utf-8")
    raise ValueError("it has no control file")
