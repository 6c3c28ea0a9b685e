"""Reads one retained document over the resident's own connection, when a worker wants it.

1. Subscribing makes the broker send what it retains. That it retains nothing is told by silence only, so a document
   that every fleet has is asked for in the same packet, behind the wanted one: when it comes and the other did not,
   the other is not there. Brokers answer the filters of one SUBSCRIBE in their order.
2. A stray delivery of that document must not be taken for the answer, so absence has to be shown twice.
3. Reading leaves no subscription behind that was not there before.
4. Only trust documents are read: a worker is not to have the resident subscribe to, or drop, anything else.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Final

from device_agent.ports import Link
from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError, TransportError
from fleet_protocol.ids import shown
from fleet_protocol.topics import Topics

_READ: Final = frozenset({topics.ROOT, topics.TIMESTAMP, topics.SNAPSHOT, topics.TARGETS, topics.DELEGATED})
_ROUNDS: Final = 2
_GRACE_S: Final = 0.2
"""How much later than the sentinel the wanted document may come (rule 1 holds, but for reordering proxies)."""


@dataclass(slots=True)
class _Reading:
    """What one reader waits for, and what has come of it."""

    wanted: str
    sentinel: str
    changed: threading.Condition = field(default_factory=threading.Condition)
    payload: bytes | None = None
    seen: bool = False
    lost: bool = False


class LinkReader:
    """device_agent.ports.RetainedReader. Called by the workers' threads, fed by the link's."""

    def __init__(self, link: Link, names: Topics) -> None:
        self._link, self._names = link, names
        self._timestamp, self._first_root = names.of(topics.TIMESTAMP), names.of(topics.ROOT, version=1)
        self._readings: list[_Reading] = []
        self._lock = threading.Lock()

    def read(self, topic: str, *, timeout_s: float) -> bytes | None:
        """The retained payload, or None where the broker holds none.

        Raises TransportError `unreachable` without a connection, `timeout` where the broker shows neither, `refused`
        for a topic that rule 4 excludes.
        """
        self._check(topic)
        until_s = time.monotonic() + timeout_s
        sentinel = self._first_root if topic == self._timestamp else self._timestamp
        try:
            for _ in range(_ROUNDS):
                payload = self._round(_Reading(topic, sentinel), until_s)
                if payload is not None:
                    return payload
        finally:
            if topic != self._timestamp:
                self._link.unsubscribe((topic,))
            if sentinel == self._first_root:
                self._link.unsubscribe((sentinel,))
        return None

    def _check(self, topic: str) -> None:
        """Rule 4."""
        try:
            allowed = self._names.parse(topic).type in _READ
        except ProtocolError:
            allowed = False
        if not allowed:
            raise TransportError("refused", f"{shown(topic)} is no trust document")

    def offer(self, topic: str, payload: bytes) -> None:
        """A message of the link, which may be what somebody reads."""
        if not payload:
            return
        with self._lock:
            concerned = [one for one in self._readings if topic in (one.wanted, one.sentinel)]
        for reading in concerned:
            with reading.changed:
                if topic == reading.wanted:
                    reading.payload = payload
                else:
                    reading.seen = True
                reading.changed.notify_all()

    def lost(self) -> None:
        """The connection broke: nothing more will come of the readings under way."""
        with self._lock:
            concerned = list(self._readings)
        for reading in concerned:
            with reading.changed:
                reading.lost = True
                reading.changed.notify_all()

    def _round(self, reading: _Reading, until_s: float) -> bytes | None:
        if not self._link.connected:
            raise TransportError("unreachable", "no connection to the broker")
        with self._lock:
            self._readings.append(reading)
        try:
            self._link.subscribe((reading.wanted, reading.sentinel))
            return self._await(reading, until_s)
        finally:
            with self._lock:
                self._readings.remove(reading)

    def _await(self, reading: _Reading, until_s: float) -> bytes | None:
        with reading.changed:
            reading.changed.wait_for(
                lambda: reading.payload is not None or reading.seen or reading.lost, until_s - time.monotonic()
            )
            if reading.seen and reading.payload is None:
                reading.changed.wait_for(lambda: reading.payload is not None or reading.lost, _GRACE_S)
            if reading.payload is not None:
                return reading.payload
        if reading.lost:
            raise TransportError("unreachable", "the connection to the broker broke")
        if not reading.seen:
            raise TransportError("timeout", f"the broker sent neither {reading.wanted} nor {reading.sentinel}")
        return None
