"""An outbox in memory."""

from device_agent.adapters.outbox import MOST, has_outcome


class MemoryOutbox:
    """Forgets everything with the process, and is otherwise the real thing."""

    def __init__(self) -> None:
        self._kept: dict[int, bytes] = {}

    def put(self, counter: int, envelope: bytes) -> None:
        """See `device_agent.ports.Outbox`."""
        if counter in self._kept:
            return
        while len(self._kept) >= MOST:
            passing = (kept for kept in sorted(self._kept) if not has_outcome(self._kept[kept]))
            del self._kept[next(passing, min(self._kept))]
        self._kept[counter] = envelope

    def waiting(self) -> list[tuple[int, bytes]]:
        """See `device_agent.ports.Outbox`."""
        return sorted(self._kept.items())

    def done(self, counter: int) -> None:
        """See `device_agent.ports.Outbox`."""
        self._kept.pop(counter, None)
