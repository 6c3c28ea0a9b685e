"""Keeps the broker's retained documents what the store says they are.

Rules, cited by number in the tests:

G1. A retained topic of the server that was emptied or overwritten holds the right document again within 5 s.
G2. A topic of the server that must be empty is emptied.
G3. A flood of foreign messages costs one publication a topic and round, and one audit entry a burst.
G4. The server's own publications come back as echoes, sometimes late and out of step with the store. What counts is
    the newest message on a topic: an echo that a newer one corrects within the settling time is no alarm.
G5. Before anything is overwritten, server.services.witness looks whether our own hand wrote it, also where a newer
    document of ours was quicker. Until there is a catalogue to judge by, nothing is touched that the store has not.
G6. Where the broker has not kept the server's session, it has acknowledged and dropped what devices reported since that
    ended. Once the new connection has been given everything, the devices are asked to report again.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from loguru import logger
from prometheus_client import CollectorRegistry, Gauge

from server.ports import Clock, Store
from server.services import audit
from server.services.complaints import Complaints
from server.services.publication import Publication

SETTLE_S: Final = 1.0
"""A wrong message is left standing this long, for the right one may be on its way."""
ROUND_S: Final = 0.5
_BURST_S: Final = 60.0
_WATCHED_MOST: Final = 100_000
_KEPT_MOST: Final = 64 * 1024 * 1024
"""Bytes of foreign documents that are kept for the witness; more are put right without a look."""


@dataclass(frozen=True, slots=True)
class _Wrong:
    since_s: float
    """Monotonic."""
    how: str
    """Empty where it is right by now."""
    payload: bytes
    """The first that came, if the witness reads it; else empty."""


class Listener(Protocol):
    """Looks at foreign documents; see server.services.witness.Witness."""

    @property
    def ready(self) -> bool: ...
    def reads(self, topic: str) -> bool: ...
    def hear(self, documents: Mapping[str, bytes]) -> set[str]: ...


class Guardian:
    """Watches every retained topic that the server publishes."""

    def __init__(
        self,
        store: Store,
        publication: Publication,
        witness: Listener,
        *,
        clock: Clock,
        ask_again: Callable[[], None],
        settle_s: float = SETTLE_S,
    ) -> None:
        """`ask_again` has every device say where it is; it must not block."""
        self._store = store
        self._publication = publication
        self._witness = witness
        self._clock = clock
        self._ask_again = ask_again
        self._settle_s = settle_s
        self._lock = threading.Lock()
        self._wrong: dict[str, _Wrong] = {}
        self._kept_bytes = 0
        self._fresh_s: float | None = None
        self._deaf = False
        """Reports may have been lost before the newest connection."""
        self._told_s: float | None = None
        self._untold = 0
        self._complaints = Complaints()
        self.restored = 0
        """How many documents were put right because of foreign messages."""

    def export(self, registry: CollectorRegistry) -> None:
        """Show `restored` as a Prometheus counter."""
        name = "fairlead_documents_restored_total"
        Gauge(name, "Retained documents put right after foreign messages", registry=registry).set_function(
            lambda: float(self.restored)
        )

    def on_connected(self, kept: bool) -> None:
        """The broker may have forgotten everything: soon all is published, but not before it has told what it holds.

        `kept`: the broker had a session of ours (G6). Never blocks.
        """
        with self._lock:
            self._fresh_s = time.monotonic()
            self._deaf = self._deaf or not kept

    def on_retained(self, topic: str, payload: bytes) -> None:
        """Take one message from a watched topic. Quick; called in the link's thread."""
        right = payload == (self._publication.wanted(topic) or b"")
        read = not right and self._witness.reads(topic)
        with self._lock:
            known = self._wrong.get(topic)
            if right and known is not None and known.payload:
                self._wrong[topic] = replace(known, how="")  # put right, but what stood there is still to be looked at
            elif right:
                self._forget(topic)
            elif known is not None and not known.how:
                self._wrong[topic] = replace(known, how="overwritten" if payload else "emptied")
            elif known is None and len(self._wrong) < _WATCHED_MOST:
                self._wrong[topic] = _Wrong(
                    time.monotonic(), "overwritten" if payload else "emptied", self._kept(payload) if read else b""
                )
            elif known is not None and read and not known.payload:
                self._wrong[topic] = _Wrong(known.since_s, known.how, self._kept(payload))

    def round(self) -> int:
        """Publish what a new connection or a foreign message asks for; returns how many topics were put right."""
        settled_s = time.monotonic() - self._settle_s
        spoilt = self._spoilt(settled_s)
        followed = self._witness.hear({topic: wrong.payload for topic, wrong in spoilt.items() if wrong.payload})
        for topic, wrong in spoilt.items():
            if wrong.how:
                self._publication.restore(topic)
        with self._lock:
            for topic, wrong in spoilt.items():
                if self._wrong.get(topic) is wrong:
                    self._forget(topic)
        foreign = {topic: wrong.how for topic, wrong in spoilt.items() if wrong.how and topic not in followed}
        self.restored += len(foreign)
        self._greet(settled_s)
        self._tell(foreign)
        return len(foreign)

    def run(self, stop: threading.Event) -> None:
        """Rounds until told to stop; one that fails is tried again at the next."""
        while not stop.wait(ROUND_S):
            self._complaints.guard("guardian", self.round)

    def problems(self) -> list[str]:
        """What keeps failing, for GET /health."""
        return self._complaints.problems()

    def _spoilt(self, settled_s: float) -> dict[str, _Wrong]:
        """What has been wrong for long enough, and may be put right (G5)."""
        ready = self._witness.ready
        with self._lock:
            return {
                topic: wrong
                for topic, wrong in self._wrong.items()
                if wrong.since_s <= settled_s and (ready or self._publication.wanted(topic) is not None)
            }

    def _greet(self, settled_s: float) -> None:
        """Give a new connection everything, once what it held has been heard."""
        with self._lock:
            if self._fresh_s is None or self._fresh_s > settled_s:
                return
            self._fresh_s = None
            deaf, self._deaf = self._deaf, False
        count = self._publication.restore_all()
        logger.info("connected to the broker: {} document(s) published", count)
        if deaf:
            self._ask_again()

    def _kept(self, payload: bytes) -> bytes:
        """The payload, where there is room for it."""
        if self._kept_bytes + len(payload) > _KEPT_MOST:
            return b""
        self._kept_bytes += len(payload)
        return payload

    def _forget(self, topic: str) -> None:
        wrong = self._wrong.pop(topic, None)
        if wrong is not None:
            self._kept_bytes -= len(wrong.payload)

    def _tell(self, spoilt: dict[str, str]) -> None:
        """Rule G3: the first of a burst is told at once, the rest as a number when the burst is over."""
        self._untold += len(spoilt)
        now_s = self._clock.now_s()
        if not self._untold or (self._told_s is not None and now_s - self._told_s < _BURST_S):
            return
        topic, how = next(iter(spoilt.items()), ("a topic", "spoilt"))
        detail = f"{how} by somebody else, put right; {self._untold} since the last entry"
        with self._store.begin() as work:
            audit.record(work, now_s, who=audit.GUARDIAN, verb="restore", subject=topic, detail=detail)
        logger.warning("{} was {}", topic, detail)
        self._told_s, self._untold = now_s, 0
