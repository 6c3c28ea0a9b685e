"""Bounds how often an unproven document may make the device ask for newer roots: a token bucket on disk."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from device_agent.adapters.files import read_optional, write_atomic

MOST: Final = 4.0
REFILL_S: Final = 30.0
"""One token more after so many seconds."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Allowance:
    """At most `MOST` tokens, in a file that outlives the worker. A new boot begins with all of them."""

    def __init__(self, path: Path, mono_s: Callable[[], float]) -> None:
        self._path, self._mono_s = path, mono_s

    def take(self) -> bool:
        """Whether there was a token to take."""
        now_s = self._mono_s()
        tokens = self._tokens(now_s)
        taken = tokens >= 1
        content = {"boot": _boot(), "mono_s": now_s, "tokens": tokens - 1 if taken else tokens}
        write_atomic(self._path, json.dumps(content).encode(), durable=False)
        return taken

    def _tokens(self, now_s: float) -> float:
        """Nothing but a rate hangs on this file: one that cannot be read counts as empty, not as full."""
        try:
            data = read_optional(self._path, 4_096)
            if data is None:
                return MOST
            row = json.loads(data)
            if row["boot"] != _boot():
                return MOST
            waited_s = max(0.0, now_s - float(row["mono_s"]))
            return min(MOST, float(row["tokens"]) + waited_s / REFILL_S)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return 0.0


def _boot() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()
