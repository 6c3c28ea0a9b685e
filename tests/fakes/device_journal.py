"""A journal in memory that keeps what a file would keep: values, not objects."""

from typing import Any

from device_agent.core.machine import initial
from device_agent.core.memory import from_memory, to_memory
from device_agent.core.record import Record
from fleet_protocol import strict_json
from fleet_protocol.errors import FleetError, ProtocolError


class MemoryJournal:
    """A device's disk for its record. `data` is what is on it; a test may tear it."""

    def __init__(self, device: str = "") -> None:
        self._device = device
        self.data: bytes | None = None
        self.begun = False

    def load(self) -> Record:
        """See `device_agent.ports.Journal`."""
        if self.data is None and not self.begun:
            return initial(self._device)
        try:
            value: Any = strict_json.loads(self.data or b"", max_size=2**24)
            return from_memory(value)
        except FleetError as error:
            raise ProtocolError("untrusted", error.detail) from None

    def save(self, record: Record) -> None:
        """See `device_agent.ports.Journal`."""
        self.data = strict_json.dumps(to_memory(record))
        self.begun = True
