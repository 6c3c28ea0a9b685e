"""The device's wall clock, never before the newest time that a verified document told.

Many devices start in 1970 until a time service is reached. The floor file is the trust path's; only its time is read
here, without the keys that it depends on, and only ever to be late rather than early: whether a document has expired
is judged by the worker.
"""

import json
import time
from pathlib import Path
from typing import Final

from device_agent.clock import Clock

_FLOORS: Final = Path("trust") / "floors.json"


class TrustedClock(Clock):
    """`device_agent.clock.Clock` with the floor of `<state_dir>/trust/floors.json`."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _FLOORS
        self._read_ns = -1
        self._floor_s = 0.0

    def wall_s(self) -> float:
        """Epoch seconds."""
        return max(time.time(), self._floor())

    def _floor(self) -> float:
        try:
            changed_ns = self._path.stat().st_mtime_ns
            if changed_ns != self._read_ns:
                self._floor_s = float(json.loads(self._path.read_bytes())["floors"]["time"]["time_s"])
                self._read_ns = changed_ns
        except (OSError, ValueError, KeyError, TypeError):
            return self._floor_s  # without a readable floor file nothing is installed anyway
        return self._floor_s
