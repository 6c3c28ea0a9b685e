"""The outbox: signed reports that wait for the broker, one file each in `<state_dir>/outbox`.

1. A report is durable before the machine forgets it, and is gone only after the broker has it.
2. At most MOST reports wait. What tells how an attempt ended outlives what tells how it went.
"""

import base64
import binascii
import re
from pathlib import Path
from typing import Final

from device_agent.adapters.files import make_dir, read_optional, remove, storing, write_atomic
from fleet_protocol import limits, strict_json
from fleet_protocol.errors import ProtocolError

MOST: Final = 256
_NAME: Final = re.compile(r"([1-9][0-9]{0,15})\.json")


class DiskOutbox:
    """The Outbox of a device. Its making, `put` and `done` may raise InstallError `no-space`, `read-only` or `io`."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "outbox"
        with storing("reading the outbox"):
            found = list(self._directory.iterdir()) if self._directory.is_dir() else []
        names = [_NAME.fullmatch(path.name) for path in found]
        self._outcomes: dict[int, bool | None] = {int(name[1]): None for name in names if name is not None}
        """By counter, whether the report tells an outcome; None until somebody wants to know."""

    def put(self, counter: int, envelope: bytes) -> None:
        """Keep the envelope durably; twice is once. At the bound the oldest report without an outcome goes first."""
        if counter in self._outcomes:
            return
        with storing(f"keeping report {counter}"):
            make_dir(self._directory)
            while len(self._outcomes) >= MOST:
                self._drop(self._least())
            write_atomic(self._path(counter), envelope)
            self._outcomes[counter] = has_outcome(envelope)

    def waiting(self) -> list[tuple[int, bytes]]:
        """All that has not been acknowledged and can be read, oldest first."""
        envelopes = [(counter, self._read(counter)) for counter in sorted(self._outcomes)]
        return [(counter, envelope) for counter, envelope in envelopes if envelope is not None]

    def done(self, counter: int) -> None:
        """The broker has it; unknown counters are ignored."""
        if counter in self._outcomes:
            with storing(f"dropping report {counter}"):
                self._drop(counter)

    def _least(self) -> int:
        """The oldest report without an outcome; the oldest of all where every one has an outcome."""
        for counter in sorted(self._outcomes):
            if not self._tells_outcome(counter):
                return counter
        return min(self._outcomes)

    def _tells_outcome(self, counter: int) -> bool:
        known = self._outcomes[counter]
        if known is None:
            envelope = self._read(counter)
            known = self._outcomes[counter] = envelope is not None and has_outcome(envelope)
        return known

    def _read(self, counter: int) -> bytes | None:
        """None for a file that the disk will not give back: the other reports must not wait for it."""
        try:
            return read_optional(self._path(counter), limits.REPORT_SIZE)
        except OSError:
            return None

    def _drop(self, counter: int) -> None:
        remove(self._path(counter))
        del self._outcomes[counter]

    def _path(self, counter: int) -> Path:
        return self._directory / f"{counter}.json"


def has_outcome(envelope: bytes) -> bool:
    """Whether a report's envelope tells how an attempt ended. An envelope that cannot be read does not."""
    try:
        payload = strict_json.loads(envelope, max_size=len(envelope))["payload"]
        report = strict_json.loads(base64.b64decode(payload, validate=True), max_size=len(envelope))
        return report["attempt"]["outcome"] is not None
    except (ProtocolError, KeyError, TypeError, binascii.Error, ValueError):
        return False
