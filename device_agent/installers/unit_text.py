"""The texts that the agent gives to systemd. Pure.

1. A text that comes from a release or from the device's owner arrives in the service exactly as it is: quotes, spaces,
   `$`, `%`, `;` and line ends are data (systemd.syntax(7), systemd.service(5) "Command lines").
2. Nothing in such a text can become another directive.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet_protocol.errors import InstallError

DROP_IN: Final = "50-fairlead.conf"
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_RESTART_FIRST_S: Final = 1
_RESTART_MOST_S: Final = 60
_RESTART_STEPS: Final = 6
_RESTART_S: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that brings no unit of its own, as the supervisor would run it."""

    name: str
    exec: Sequence[str]
    directory: str
    environment: Mapping[str, str]
    stop_s: int


def quoted(text: str) -> str:
    """One word of a line of words. Not for the names of variables in Exec lines: see `program_unit`."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def whole_line(text: str) -> str:
    """A value that systemd takes as it stands to the end of the line, but for specifiers.

    Raises InstallError `start` for one that can not be written so.
    """
    if text != text.strip() or not text.isprintable() or text.endswith("\\"):
        raise InstallError("start", f"systemd can not be told of {text!a}")
    return text.replace("%", "%%")


def program_unit(program: Program, *, user: bool, backoff: bool) -> str:
    """A unit that runs the program for ever. `backoff` says whether systemd knows RestartSteps= (254 and later).

    The prefix `:` of ExecStart= keeps `$` from being looked for (since 244). Hardening is left to releases that bring
    a unit: whatever is taken from a program here, some program needs.
    """
    pause = (
        [
            f"RestartSec={_RESTART_FIRST_S}",
            f"RestartSteps={_RESTART_STEPS}",
            f"RestartMaxDelaySec={_RESTART_MOST_S}",
        ]
        if backoff
        else [f"RestartSec={_RESTART_S}"]
    )
    lines = [
        "# Written by the Fairlead agent for a release that brings no unit of its own; overwritten by every update.",
        "[Unit]",
        f"Description={whole_line(program.name)}",
        "After=network.target",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        "ExecStart=:" + " ".join(quoted(word) for word in program.exec),
        f"WorkingDirectory={whole_line(program.directory)}",
        *(f"Environment={quoted(f'{name}={value}')}" for name, value in program.environment.items()),
        "UMask=0022",
        "Restart=always",
        *pause,
        "KillMode=control-group",
        f"TimeoutStopSec={program.stop_s}",
        "KeyringMode=private",
        "",
        "[Install]",
        f"WantedBy={'default.target' if user else 'multi-user.target'}",
    ]
    return "\n".join(lines) + "\n"


def drop_in(*, state_dir: Path, guard: Path, environment: Mapping[str, str]) -> str:
    """What every unit of ours has beside it: it waits for the agent's disk, and does not start while it is quiet."""
    lines = [
        "# Written by the Fairlead agent and overwritten by every update: put settings of your own into another file.",
        "[Unit]",
        f"RequiresMountsFor={quoted(str(state_dir))}",
        f"ConditionPathExists=!{whole_line(str(guard))}",
        "",
        "[Service]",
        *(f"Environment={quoted(f'{name}={value}')}" for name, value in environment.items()),
    ]
    return "\n".join(lines) + "\n"


def _escaped(character: str) -> str:
    known = _ESCAPES.get(character)
    if known is not None:
        return known
    return f"\\x{ord(character):02x}" if ord(character) < 0x20 or ord(character) == 0x7F else character
