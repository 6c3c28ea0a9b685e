"""Versions of Debian packages in order (Debian Policy, section 5.6.12; deb-version(7))."""

import re
from functools import cache
from itertools import zip_longest
from typing import Final

_PIECE: Final = re.compile(r"([^0-9]*)([0-9]*)")
_END: Final = ((0,), 0)
_Pieces = tuple[tuple[tuple[int, ...], int], ...]


def compare(one: str, other: str) -> int:
    """Below zero where `one` is older than `other`, zero where they are equal, above zero where it is newer."""
    for left, right in zip(_key(one), _key(other), strict=True):
        for a, b in zip_longest(left, right, fillvalue=_END):
            if a != b:
                return -1 if a < b else 1
    return 0


@cache
def _key(version: str) -> tuple[_Pieces, _Pieces, _Pieces]:
    epoch, colon, rest = version.partition(":")
    rest, epoch = (rest, epoch) if colon else (version, "0")
    upstream, hyphen, revision = rest.rpartition("-")
    upstream, revision = (upstream, revision) if hyphen else (rest, "")
    return _pieces(epoch), _pieces(upstream), _pieces(revision)


def _pieces(text: str) -> _Pieces:
    """Text and number by turns; a text ends with 0, so that `~` sorts before its end and all else after it."""
    found = []
    for letters, digits in _PIECE.findall(text):
        if letters or digits:
            found.append(((*(_place(letter) for letter in letters), 0), int(digits or "0")))
    return tuple(found)


def _place(letter: str) -> int:
    if letter == "~":
        return -1
    return ord(letter) if letter.isascii() and letter.isalpha() else ord(letter) + 256
