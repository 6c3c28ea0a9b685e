"""What the unit file of a release may say (systemd.unit(5)): checked when it is packed, and again on each device.

Rules
1. UTF-8 text of at most `SIZE` bytes. It has a [Service] section with an ExecStart=.
2. It can be started and stopped by whoever asks, for that is how it is updated: no RefuseManualStart=, no
   RefuseManualStop=.
3. Enabling it enables nothing else: no Also=. What is enabled beside it could not be put back.
4. `@SLOT@` and `@NAME@` are filled in on the device, each as it stands, with `%` doubled (specifiers).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

SIZE: Final = 64 * 1024
SLOT: Final = "SLOT"
_TOKEN: Final = re.compile(r"@([A-Za-z_][A-Za-z0-9_]*)@")
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_TRUE: Final = frozenset({"1", "yes", "true", "on", "y", "t"})
_INSTALLS: Final[Mapping[str, str]] = {"WantedBy": ".wants/", "RequiredBy": ".requires/", "UpheldBy": ".upholds/"}
_PROGRAM: Final = re.compile(rf"""[-@:+!|]*?(?:"@{SLOT}@/(?P<quoted>[^"]+)"|@{SLOT}@/(?P<word>[^\s"']+))""")


class UnitFileError(ValueError):
    """The unit file breaks a rule; one line for people."""


@dataclass(frozen=True, slots=True)
class Directive:
    """One assignment, continuation lines joined."""

    section: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A unit file that keeps the rules."""

    text: str
    directives: tuple[Directive, ...]

    @property
    def tokens(self) -> tuple[str, ...]:
        """What is to be filled in, each name once, sorted; `SLOT` is not among them."""
        return tuple(sorted({found[1] for found in _TOKEN.finditer(self.text)} - {SLOT}))

    @property
    def programs(self) -> tuple[str, ...]:
        """The paths inside the artifact that it runs."""
        commands = (found.value for found in self.directives if found.section == "Service" and found.key[:4] == "Exec")
        found = (_PROGRAM.match(command) for command in commands)
        return tuple(one["quoted"] or one["word"] for one in found if one is not None)

    @property
    def install(self) -> tuple[Directive, ...]:
        """What enabling it means, in the order of the file."""
        return tuple(found for found in self.directives if found.section == "Install" and found.value)

    def links(self, unit: str) -> frozenset[str]:
        """The symbolic links that enabling it makes, relative to where units are configured (systemd.unit(5)).

        Names with specifiers are left out: only systemd knows them.
        """
        found = set()
        for directive in self.install:
            names = [name for name in directive.value.split() if "%" not in name and "/" not in name]
            if directive.key == "Alias":
                found.update(names)
            elif directive.key in _INSTALLS:
                found.update(f"{name}{_INSTALLS[directive.key]}{unit}" for name in names)
        return frozenset(found)

    def filled(self, values: Mapping[str, str]) -> str:
        """The text with each token replaced, once. Raises UnitFileError for a name or value that can not be used."""

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name not in values:
                raise UnitFileError(f"variable {name} is not set on this device")
            if any(character in values[name] for character in "\n\r\0"):
                raise UnitFileError(f"variable {name} has more than one line")
            return values[name].replace("%", "%%")

        return _TOKEN.sub(value, self.text)


def read_unit_file(data: bytes) -> UnitFile:
    """Raises UnitFileError, in one line, where a rule is broken."""
    if len(data) > SIZE:
        raise UnitFileError(f"it has {len(data)} bytes, at most {SIZE} may be")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise UnitFileError("it is not UTF-8") from None
    if "\0" in text:
        raise UnitFileError("it holds a NUL")
    found = UnitFile(text, tuple(_directives(text)))
    if not any(one.section == "Service" and one.key == "ExecStart" and one.value for one in found.directives):
        raise UnitFileError("it has no ExecStart= in a [Service] section")
    for one in found.directives:
        if one.key in ("RefuseManualStart", "RefuseManualStop") and one.value.lower() in _TRUE:
            raise UnitFileError(f"{one.key}= keeps the agent from updating it")
        if one.section == "Install" and one.key == "Also" and one.value:
            raise UnitFileError("Also= would enable units that are not of this release")
    return found


def _directives(text: str) -> Iterator[Directive]:
    """As systemd reads them (systemd.syntax(7)): comments may stand between the lines of a continued one."""
    section, held = "", ""
    for line in (*_LINE_END.split(text), ""):
        if line.lstrip()[:1] in ("#", ";"):
            continue
        if line.endswith("\\"):
            held += line[:-1] + " "
            continue
        whole, held = (held + line).strip(), ""
        if whole.startswith("[") and whole.endswith("]"):
            section = whole[1:-1]
        elif "=" in whole:
            key, _, value = whole.partition("=")
            yield Directive(section, key.strip(), value.strip())
        elif whole:
            raise UnitFileError(f"line {whole[:60]!a} is neither a section nor an assignment")
