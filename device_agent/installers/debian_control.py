"""What a Debian package says of itself, and what it says of others (Debian Policy, chapter 7; deb-control(5))."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

_RELATION: Final = re.compile(
    r"([a-z0-9][a-z0-9+.-]*)(?::([a-z0-9-]+))?\s*(?:\(\s*(<<|<=|=|>=|>>|<|>)\s*([^\s()]+)\s*\))?"
)
_OLD: Final = {"<": "<=", ">": ">="}
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Relation:
    """One package by name, and which of it: `operator` is empty where any version will do, `qualifier` is an
    architecture, `any`, or empty."""

    name: str
    qualifier: str = ""
    operator: str = ""
    version: str = ""

    def __str__(self) -> str:
        name = f"{self.name}:{self.qualifier}" if self.qualifier else self.name
        return f"{name} ({self.operator} {self.version})" if self.operator else name


Relations = tuple[tuple[Relation, ...], ...]
"""All of these, and of each any one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The fields that decide whether packages go together; relations as they are written."""

    name: str
    version: str
    architecture: str
    multi_arch: str = ""
    depends: str = ""
    pre_depends: str = ""
    conflicts: str = ""
    breaks: str = ""
    provides: str = ""
    size_kib: int = 0
    """What it takes when it is installed, by its own estimate."""

    @property
    def spec(self) -> str:
        """As dpkg's tools take it."""
        return f"{self.name}:{self.architecture}"

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@cache
def relations(field: str) -> Relations:
    """The relations of a field; one that is not of its form is a relation to a package that nobody has."""
    groups = (group for group in field.replace("\n", " ").split(",") if group.strip())
    return tuple(tuple(_relation(text.strip()) for text in group.split("|")) for group in groups)


def _relation(text: str) -> Relation:
    found = _RELATION.fullmatch(text)
    if found is None:
        return Relation(name=text)
    name, qualifier, operator, version = found.groups(default="")
    return Relation(name, qualifier, _OLD.get(operator, operator), version)
