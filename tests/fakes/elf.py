"""Kernel module files for tests: as small as an ELF object can be, and right or wrong wherever a test says."""

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet_protocol.module_file import MACHINES, Machine

KERNEL = "6.1.0-test"
SIGNATURE = b"~Module signature appended~\n"


@dataclass(frozen=True, kw_only=True)
class Module:
    """What is written into the file. `says` is more of `.modinfo`, by which the fake kernel knows how to behave."""

    name: str = "demo_drv"
    kernel: str = KERNEL
    flags: str = "SMP mod_unload"
    version: str | None = "1.0"
    srcversion: str | None = "0123456789ABCDEF0123456"
    build: bytes | None = b"one"
    depends: Sequence[str] = ()
    aliases: Sequence[str] = ()
    says: Mapping[str, str] = field(default_factory=dict)
    functions: Sequence[str] = ("init_module", "cleanup_module")
    machine: Machine = MACHINES[os.uname().machine]
    kind: int = 1
    signed: bool = False

    def modinfo(self) -> bytes:
        rows = [("version", self.version), ("srcversion", self.srcversion), ("depends", ",".join(self.depends))]
        rows += [("alias", alias) for alias in self.aliases] + list(self.says.items())
        rows += [("name", self.name), ("vermagic", f"{self.kernel} {self.flags}")]
        return b"".join(f"{key}={value}\0".encode() for key, value in rows if value is not None)

    def note(self) -> bytes | None:
        """The section `.note.gnu.build-id`, as the kernel shows it, too."""
        if self.build is None:
            return None
        return struct.pack("<III4s", 4, 20, 3, b"GNU\0") + self.build.ljust(20, b"\0")

    def file(self) -> bytes:
        """The whole file."""
        strings, symbols = self._symbols()
        sections = [("", 0, b"", 0), (".modinfo", 1, self.modinfo(), 0)]
        note = self.note()
        if note is not None:
            sections.append((".note.gnu.build-id", 7, note, 0))
        sections += [(".symtab", 2, symbols, len(sections) + 1), (".strtab", 3, strings, 0)]
        names = b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
        sections.append((".shstrtab", 3, names, 0))
        return self._laid_out(sections) + (b"a signature" + SIGNATURE if self.signed else b"")

    def _symbols(self) -> tuple[bytes, bytes]:
        strings, symbols = b"\0", self._pack("IBBHQQ", "IIIBBH", (0,) * 6)
        for function in self.functions:
            place = len(strings)
            symbols += self._pack("IBBHQQ", "IIIBBH", (place, 18, 0, 1, 0, 0), (place, 0, 0, 18, 0, 1))
            strings += function.encode() + b"\0"
        return strings, symbols

    def _laid_out(self, sections: Sequence[tuple[str, int, bytes, int]]) -> bytes:
        wide = self.machine.bits == 64
        start = 64 if wide else 52
        body, table, name_at = b"", b"", 0
        for name, kind, content, link in sections:
            at = start + len(body)
            row = (name_at, kind, 0, 0, at, len(content), link, 0, 1, 0)
            table += self._pack("IIQQQQIIQQ", "IIIIIIIIII", row)
            body, name_at = body + content, name_at + len(name) + 1
        order = 1 if self.machine.order == "little" else 2
        ident = b"\x7fELF" + bytes([2 if wide else 1, order, 1]) + bytes(9)
        table_at, entry = start + len(body), 64 if wide else 40
        sizes = (start, 0, 0, entry, len(sections), len(sections) - 1)
        head = (self.kind, self.machine.number, 1, 0, 0, table_at, 0, *sizes)
        return ident + self._pack("HHIQQQIHHHHHH", "HHIIIIIHHHHHH", head) + body + table

    def _pack(self, wide: str, narrow: str, values: Sequence[int], other: Sequence[int] | None = None) -> bytes:
        order = "<" if self.machine.order == "little" else ">"
        if self.machine.bits == 64:
            return struct.pack(order + wide, *values)
        return struct.pack(order + narrow, *(other or values))
