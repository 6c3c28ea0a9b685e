"""What systemd units write to the journal (journalctl(1)): read when somebody asks, and once a health round."""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from device_agent.installers.programs import Programs
from device_agent.probes.log_errors import ERROR

_ERROR: Final = re.compile(ERROR, re.MULTILINE)
_ASK_S: Final = 20.0
_ERR: Final = 3
"""syslog's priority `err` (RFC 5424, section 6.2.1); lower is worse."""
_LOOK_MOST: Final = 2_000
"""Entries of one look; a unit that writes more has been seen to be noisy enough."""
_OUTPUT_MOST: Final = 2 * 1024 * 1024
_FIELDS: Final = "MESSAGE,PRIORITY,UNIT,USER_UNIT,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT,_UID"


@dataclass(frozen=True, slots=True)
class UnitLog:
    """One unit's entries. `uid` is whose own service manager has the unit, None for the system's."""

    unit: str
    uid: int | None = None

    @property
    def own(self) -> tuple[str, ...]:
        """What matches the entries that the unit itself wrote (systemd.journal-fields(7))."""
        if self.uid is None:
            return (f"_SYSTEMD_UNIT={self.unit}",)
        return (f"_SYSTEMD_USER_UNIT={self.unit}", f"_UID={self.uid}")

    @property
    def matches(self) -> tuple[str, ...]:
        """What matches these, and what systemd wrote about the unit."""
        if self.uid is None:
            return (*self.own, "+", f"UNIT={self.unit}", "_PID=1")
        return (*self.own, "+", f"USER_UNIT={self.unit}", f"_UID={self.uid}")

    def wrote(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry that some unit's matches found is of this one."""
        if self.uid is None:
            return self.unit in (entry.get("_SYSTEMD_UNIT"), entry.get("UNIT"))
        ours = self.unit in (entry.get("_SYSTEMD_USER_UNIT"), entry.get("USER_UNIT"))
        return ours and entry.get("_UID") == str(self.uid)


def last_lines(programs: Programs, matches: Sequence[str], lines: int, most: int) -> tuple[str, ...]:
    """The newest lines, oldest first, at most `most` bytes of them; none where there is no journal."""
    arguments = ("--quiet", "--no-pager", "--output=cat", f"--lines={max(0, lines)}")
    ran = programs.run("journalctl", *arguments, *matches, timeout_s=_ASK_S, most_bytes=most)
    return tuple(ran.output.splitlines())[-lines:] if ran.status == 0 and lines > 0 else ()


class JournalErrors:
    """Error entries a minute by unit, with one journalctl for all of them."""

    def __init__(self, programs: Programs, *, mono_s: Callable[[], float] = time.monotonic) -> None:
        self._programs, self._mono_s = programs, mono_s
        self._cursor: str | None = None
        self._at_s = 0.0
        self._known: frozenset[str] = frozenset()

    def per_minute(self, logs: Mapping[str, UnitLog]) -> dict[str, float]:
        """Since the last call; a service that was not there then is left out."""
        if not logs:
            self._cursor, self._known = None, frozenset()
            return {}
        known, before_s, self._at_s = self._known, self._at_s, self._mono_s()
        self._known = frozenset(logs)
        if self._cursor is None:
            self._cursor = self._newest()
            return {}
        entries = self._since(self._cursor, logs)
        span_s = self._at_s - before_s
        if len(entries) >= _LOOK_MOST:
            self._cursor = self._newest()
        elif entries:
            self._cursor = str(entries[-1].get("__CURSOR"))
        errors = [entry for entry in entries if _is_error(entry)]
        rates = {name: sum(log.wrote(entry) for entry in errors) * 60.0 for name, log in logs.items()}
        return {name: rate / span_s for name, rate in rates.items() if name in known} if span_s > 0 else {}

    def _newest(self) -> str | None:
        entries = self._read("--lines=1")
        return str(entries[-1]["__CURSOR"]) if entries else None

    def _since(self, cursor: str, logs: Mapping[str, UnitLog]) -> list[Mapping[str, Any]]:
        matches = [word for log in logs.values() for word in ("+", *log.matches)][1:]
        return self._read(f"--after-cursor={cursor}", f"--lines={_LOOK_MOST}", *matches)

    def _read(self, *arguments: str) -> list[Mapping[str, Any]]:
        fixed = ("--quiet", "--no-pager", "--output=json", f"--output-fields={_FIELDS}")
        ran = self._programs.run("journalctl", *fixed, *arguments, timeout_s=_ASK_S, most_bytes=_OUTPUT_MOST)
        if ran.status != 0:
            self._cursor = None  # the journal was rotated away from under it, or is not there
            return []
        return [entry for entry in map(_entry, ran.output.splitlines()) if entry]


def _entry(line: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) and "__CURSOR" in value else {}


def _is_error(entry: Mapping[str, Any]) -> bool:
    priority, message = entry.get("PRIORITY"), entry.get("MESSAGE")
    if isinstance(priority, str) and priority.isdecimal() and int(priority) <= _ERR:
        return True
    return isinstance(message, str) and _ERROR.search(message) is not None
