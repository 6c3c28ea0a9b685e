"""What a kernel module's file says of itself: a strict, bounded reader of one kind of ELF file.

Rules
1. Any bytes give a ModuleFile or ProtocolError `format`. Nothing is read beyond the file, and at most a few MiB of it
   are copied.
2. Where a name stands twice in `.modinfo`, the first counts, as for the kernel (kernel/module/main.c, get_modinfo).
3. What is used is printable ASCII. A section that is used is there once.

Sources: elf(5); System V Application Binary Interface, chapter 4; the kernel's kernel/module/main.c and
include/linux/module_signature.h.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown

FILE_SIZE: Final = 256 * 1024 * 1024
"""Bytes of the largest module file that is read."""

_IDENT: Final = 16
_ORDER: Final = {"little": "<", "big": ">"}
_HEADER: Final = {32: "HHIIIIIHHHHHH", 64: "HHIQQQIHHHHHH"}
_SECTION: Final = {32: "IIIIIIIIII", 64: "IIQQQQIIQQ"}
_SYMBOL: Final = {32: "IIIBBH", 64: "IBBHQQ"}
_SYMBOL_SECTION: Final = {32: 5, 64: 3}
_RELOCATABLE: Final = 1
_PROGBITS, _SYMTAB, _STRTAB, _NOTE = 1, 2, 3, 7
_NAME_MOST: Final = 64
_INFO_MOST: Final = 512 * 1024
_NOTE_MOST: Final = 1_024
_TEXT_MOST: Final = 512
_SIGNED: Final = b"~Module signature appended~\n"


@dataclass(frozen=True, slots=True)
class Machine:
    """What processor a file is for: the ABI's number for it, its word size and its byte order."""

    number: int
    bits: int
    order: Literal["little", "big"]

    def __str__(self) -> str:
        known = next((name for name, machine in MACHINES.items() if machine == self), f"kind {self.number}")
        return f"{known} ({self.bits} bits, {self.order} endian)"


MACHINES: Final[Mapping[str, Machine]] = {
    "x86_64": Machine(62, 64, "little"),
    "i686": Machine(3, 32, "little"),
    "aarch64": Machine(183, 64, "little"),
    "armv6l": Machine(40, 32, "little"),
    "armv7l": Machine(40, 32, "little"),
    "riscv64": Machine(243, 64, "little"),
    "ppc64le": Machine(21, 64, "little"),
    "s390x": Machine(22, 64, "big"),
}
"""By the name that `uname -m` prints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFile:
    """What modinfo(8) shows of it, as far as it decides whether and how it is loaded."""

    machine: Machine
    name: str
    """As `/sys/module` spells it."""
    vermagic: str
    """What the kernel compares with its own, letter by letter."""
    version: str | None
    srcversion: str | None
    """A digest of the sources. Two modules of one source, built with other options, have the same."""
    build_id: str | None
    """The note `.note.gnu.build-id`, hexadecimal: a digest of what was linked."""
    depends: tuple[str, ...]
    aliases: tuple[str, ...]
    signed: bool
    """Whether a signature is appended; whose, and whether it is right, is not looked at."""
    permanent: bool
    """Whether the kernel would never unload it: it has an init function and no exit function."""

    @property
    def kernel(self) -> str:
        """The kernel release that it was built for, as `uname -r` prints it."""
        return self.vermagic.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    start: int
    end: int
    link: int


def read_module(data: bytes) -> ModuleFile:
    """What the file says (rules 1 to 3). Raises ProtocolError `format`."""
    machine = _machine(data)
    named, table = _sections(data, machine)
    if ".modinfo" not in named:
        raise _wrong("it has no .modinfo: it is not a kernel module")
    info = _modinfo(_content(data, named[".modinfo"], _PROGBITS, _INFO_MOST))
    note = named.get(".note.gnu.build-id")
    symbols = _symbols(data, machine, table)
    return ModuleFile(
        machine=machine,
        name=_needed(info, "name"),
        vermagic=_needed(info, "vermagic"),
        version=_text(info, "version"),
        srcversion=_text(info, "srcversion"),
        build_id=None if note is None else _content(data, note, _NOTE, _NOTE_MOST).hex(),
        depends=tuple(name.replace("-", "_") for name in (_text(info, "depends") or "").split(",") if name),
        aliases=tuple(alias for alias in map(_printable, info.get("alias", ())) if alias is not None),
        signed=data.endswith(_SIGNED),
        permanent="init_module" in symbols and "cleanup_module" not in symbols,
    )


def _machine(data: bytes) -> Machine:
    if len(data) > FILE_SIZE:
        raise _wrong(f"it is larger than {FILE_SIZE} bytes")
    bits = {1: 32, 2: 64}.get(data[4] if len(data) > _IDENT else 0)
    if data[:4] != b"\x7fELF" or bits is None or data[5] not in (1, 2) or data[6] != 1:
        raise _wrong("it is not an ELF file")
    order: Literal["little", "big"] = "little" if data[5] == 1 else "big"
    head = struct.Struct(_ORDER[order] + _HEADER[bits])
    if len(data) < _IDENT + head.size:
        raise _wrong("it ends in its header")
    kind, number, version, *_ = head.unpack_from(data, _IDENT)
    if kind != _RELOCATABLE or version != 1:
        raise _wrong("it is not a relocatable object")
    return Machine(number, bits, order)


def _sections(data: bytes, machine: Machine) -> tuple[dict[str, _Section], list[_Section]]:
    """Those that are used by name, and all by number."""
    order = _ORDER[machine.order]
    head = struct.unpack_from(order + _HEADER[machine.bits], data, _IDENT)
    start, entry_size, count, names_at = head[5], head[10], head[11], head[12]
    entry = struct.Struct(order + _SECTION[machine.bits])
    if entry_size != entry.size or not 0 < names_at < count or start + count * entry.size > len(data):
        raise _wrong("its section table is not of its form")
    table, places = [], []
    for name, kind, _, _, offset, size, link, *_ in entry.iter_unpack(data[start : start + count * entry.size]):
        table.append(_Section(kind, offset, offset + size, link))
        places.append(name)
    names = _bounds(data, table[names_at], _STRTAB)
    named: dict[str, _Section] = {}
    for place, section in zip(places, table, strict=True):
        name = _name(data, names, place)
        if name in (".modinfo", ".note.gnu.build-id"):
            if name in named:
                raise _wrong(f"it has {name} twice")
            named[name] = section
    return named, table


def _symbols(data: bytes, machine: Machine, table: list[_Section]) -> frozenset[str]:
    """Which of the two functions of a module are defined in it."""
    found = [section for section in table if section.kind == _SYMTAB]
    if len(found) != 1 or found[0].link >= len(table):
        raise _wrong("it has no symbol table, or several")
    names = _bounds(data, table[found[0].link], _STRTAB)
    entry = struct.Struct(_ORDER[machine.order] + _SYMBOL[machine.bits])
    start, end = _bounds(data, found[0], _SYMTAB)
    if (end - start) % entry.size:
        raise _wrong("its symbol table is not of its form")
    wanted = {place: name for name in ("init_module", "cleanup_module") for place in _places(data, names, name)}
    section = _SYMBOL_SECTION[machine.bits]
    entries = entry.iter_unpack(memoryview(data)[start:end])
    return frozenset(wanted[symbol[0]] for symbol in entries if symbol[0] in wanted and symbol[section])


def _places(data: bytes, names: tuple[int, int], name: str) -> list[int]:
    """Where in the string table the name can be read; a linker may let it share the end of another one."""
    text, places, at = name.encode() + b"\0", [], names[0] - 1
    while (at := data.find(text, at + 1, names[1])) >= 0:
        places.append(at - names[0])
    return places


def _bounds(data: bytes, section: _Section, kind: int) -> tuple[int, int]:
    if section.kind != kind or section.end > len(data):
        raise _wrong("a section is not of its kind, or not in the file")
    return section.start, section.end


def _content(data: bytes, section: _Section, kind: int, most: int) -> bytes:
    start, end = _bounds(data, section, kind)
    if end - start > most:
        raise _wrong(f"a section of {end - start} bytes")
    return data[start:end]


def _name(data: bytes, names: tuple[int, int], place: int) -> str:
    start, end = names[0] + place, names[1]
    return data[start : min(start + _NAME_MOST, end)].partition(b"\0")[0].decode("ascii", "replace")


def _modinfo(content: bytes) -> dict[str, list[bytes]]:
    """The values by name, in the file's order."""
    found: dict[str, list[bytes]] = {}
    for entry in content.split(b"\0"):
        name, is_there, value = entry.partition(b"=")
        if is_there:
            found.setdefault(name.decode("ascii", "replace"), []).append(value)
    return found


def _needed(info: Mapping[str, list[bytes]], name: str) -> str:
    value = _text(info, name)
    if not value:
        raise _wrong(f"its .modinfo has no {name}")
    return value


def _text(info: Mapping[str, list[bytes]], name: str) -> str | None:
    """The first value of this name (rules 2 and 3)."""
    if name not in info:
        return None
    value = _printable(info[name][0])
    if value is None:
        raise _wrong(f"its {name} is {shown(info[name][0])}")
    return value


def _printable(value: bytes) -> str | None:
    text = value.decode("ascii", "replace")
    return text if len(value) <= _TEXT_MOST and text.isascii() and (text.isprintable() or not text) else None


def _wrong(detail: str) -> ProtocolError:
    return ProtocolError("format", f"not a kernel module's file: {detail}")
