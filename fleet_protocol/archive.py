"""What may stand in a `tar.zst` artifact: the rules that the packer keeps and the device enforces.

Rules
1. An artifact is exactly one zstd frame, with a window of at most WINDOW_SIZE and nothing after it.
2. It unpacks to a POSIX tar stream (ustar, with pax headers only for long names) that ends with two
   zero blocks; nothing but zeros follows them.
3. Members are regular files and directories. `unpacked_files` counts both; `unpacked_size` adds the
   files' bytes.
4. A name is relative, of 1 to DEPTH parts joined by `/`, in Unicode normal form C; no part is `.` or
   `..`, is longer than PART_SIZE bytes, or holds a control character or a backslash.
5. No two names are the same when case is folded, so that a tree is one tree on every file system.
6. A directory comes before what is in it, and every directory is a member.
"""

import unicodedata
from typing import Final

from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown

WINDOW_SIZE: Final = 8 * 1024 * 1024
DEPTH: Final = 32
PART_SIZE: Final = 255
NAME_SIZE: Final = 1_024


class MemberNames:
    """The names of one archive, in order; refuses the first that breaks rules 4 to 6."""

    def __init__(self) -> None:
        self._folded: set[str] = set()
        self._directories: set[str] = set()

    def add(self, name: str, *, directory: bool) -> None:
        """Admit the member, or raise ProtocolError `archive`. `name` has no `/` at its end."""
        check_member_name(name)
        parent = name.rpartition("/")[0]
        if parent and parent not in self._directories:
            raise ProtocolError("archive", f"{shown(name)} comes before its directory")
        folded = fold(name)
        if folded in self._folded:
            raise ProtocolError("archive", f"{shown(name)} is there twice, or differs only in case")
        self._folded.add(folded)
        if directory:
            self._directories.add(name)

    def __len__(self) -> int:
        """How many members were admitted."""
        return len(self._folded)


def check_member_name(name: str) -> str:
    """Return a name that rule 4 allows, or raise ProtocolError `archive`. It can not leave its directory."""
    parts = name.split("/")
    if len(parts) > DEPTH or not all(_part_ok(part) for part in parts):
        raise ProtocolError("archive", f"{shown(name)} is not a plain relative name")
    if len(name.encode("utf-8")) > NAME_SIZE or not unicodedata.is_normalized("NFC", name):
        raise ProtocolError("archive", f"{shown(name)} is too long or not in Unicode normal form C")
    return name


def fold(name: str) -> str:
    """The form in which two names that one file system may take for the same are equal.

    Unicode's compatibility caseless match (The Unicode Standard, section 3.13, D146).
    """
    once = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", name).casefold())
    return unicodedata.normalize("NFKD", once.casefold())


def _part_ok(part: str) -> bool:
    if part in ("", ".", "..") or "\\" in part:
        return False
    if any(unicodedata.category(character) in ("Cc", "Cs", "Cf") for character in part):
        return False
    return len(part.encode("utf-8")) <= PART_SIZE
