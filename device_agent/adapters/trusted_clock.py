"""The device's wall clock, never before the newest time that a verified document told, and what has passed since.

Many devices start in 1970 until a time service is reached, some for good. Time goes on for them all the same: what is
to begin at a moment begins, if late, and nothing waits for a moment that never comes nearer. The floor file is the
trust path's; only its time is read here, without the keys that it depends on, and only ever to be late rather than
early: whether a document has expired is judged by the worker. The file may be the worker user's, and is read as a
stranger's.
"""

import time
from pathlib import Path
from typing import Final

from device_agent.adapters.foreign_folder import read_plain
from device_agent.clock import Clock
from fleet_protocol import strict_json
from fleet_protocol.errors import ProtocolError

_FLOORS: Final = Path("trust") / "floors.json"
_SIZE: Final = 1024 * 1024
_LATEST_S: Final = 253_402_300_799
"""The last second of 9999: no document can tell a later time."""


class TrustedClock(Clock):
    """`device_agent.clock.Clock` with the floor of `<state_dir>/trust/floors.json`."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _FLOORS
        self._read_ns = -1
        self._told_s, self._since_s = 0.0, self.mono_s()

    def wall_s(self) -> float:
        """Epoch seconds."""
        return max(time.time(), self._floor())

    def _floor(self) -> float:
        self._look()
        return min(self._told_s + self.mono_s() - self._since_s, _LATEST_S)

    def _look(self) -> None:
        """Take what the file tells, where it has changed; without a readable one nothing is installed anyway."""
        try:
            changed_ns = self._path.stat(follow_symlinks=False).st_mtime_ns
            if changed_ns != self._read_ns:
                data = read_plain(self._path, _SIZE)
                self._read_ns = changed_ns
                told_s = _time_in(data)
                if told_s != self._told_s:
                    self._told_s, self._since_s = told_s, self.mono_s()
        except (OSError, ProtocolError, KeyError, TypeError, ValueError):
            return


def _time_in(data: bytes) -> float:
    """The time floor of a floor file; raises ProtocolError, KeyError, TypeError or ValueError for anything else."""
    time_s = strict_json.loads(data, max_size=_SIZE)["floors"]["time"]["time_s"]
    if type(time_s) is not int or not 0 <= time_s <= _LATEST_S:
        raise ValueError("no time that a document can tell")
    return float(time_s)
