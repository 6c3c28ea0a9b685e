"""What is counted of the ingest, and when a line is logged about what was dropped."""

import threading
import time
from collections import Counter as Counts
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from loguru import logger
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BURST_S: Final = 60.0
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)


@dataclass
class Tally:
    """What one batch came to. It is added to the metrics only when the batch is committed."""

    stored: Counts[str] = field(default_factory=Counts)
    """By kind of message."""
    dropped: Counts[tuple[str, str]] = field(default_factory=Counts)
    """By kind and code."""
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    """One reason for people for each of `dropped`."""
    attacks: Counts[str] = field(default_factory=Counts)
    """Attacks that devices counted since they were heard last, by code."""
    reboots: int = 0

    def drop(self, kind: str, code: str, detail: str) -> None:
        """One message of this kind is dropped."""
        self.dropped[kind, code] += 1
        self.examples.setdefault((kind, code), detail)


class IngestMetrics:
    """The ingest's collectors in one registry."""

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bursts = Bursts(clock)
        self._stored = Counter(
            "fairlead_ingest_messages", "Messages stored, by kind of topic", ["kind"], registry=registry
        )
        self._dropped = Counter(
            "fairlead_ingest_dropped",
            "Messages dropped, by kind of topic and code",
            ["kind", "code"],
            registry=registry,
        )
        self._attacks = Counter(
            "fairlead_device_attacks",
            "Documents and artifacts that devices refused as attacks, by code",
            ["code"],
            registry=registry,
        )
        self._reboots = Counter("fairlead_device_reboots", "Changes of a device's boot id", registry=registry)
        self._retries = Counter(
            "fairlead_ingest_retries", "Batches that had to wait for the database", registry=registry
        )
        self._batch = Histogram(
            "fairlead_ingest_batch_messages", "Messages committed together", buckets=_SIZES, registry=registry
        )
        self._commit = Histogram(
            "fairlead_ingest_batch_seconds", "From taking a batch to its commit", registry=registry
        )
        self._waiting = Gauge("fairlead_ingest_waiting_messages", "Messages not yet stored", registry=registry)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Show this number as what waits."""
        self._waiting.set_function(waiting)

    def add(self, tally: Tally, *, messages: int, seconds: float) -> None:
        """One batch is committed."""
        for kind, number in tally.stored.items():
            self._stored.labels(kind).inc(number)
        for code, number in tally.attacks.items():
            self._attacks.labels(code).inc(number)
        if tally.reboots:
            self._reboots.inc(tally.reboots)
        self._batch.observe(messages)
        self._commit.observe(seconds)
        for (kind, code), number in tally.dropped.items():
            self.drop(kind, code, tally.examples[kind, code], number)

    def drop(self, kind: str, code: str, detail: str, number: int = 1) -> None:
        """Count messages as dropped; one log line a burst."""
        self._dropped.labels(kind, code).inc(number)
        untold = self._bursts.note(f"{kind} {code}", number)
        if untold:
            logger.warning("dropped {} {} message(s), {}: {}", untold, kind, code, detail)

    def retry(self, messages: int, detail: str) -> None:
        """A batch could not be stored now and is kept; one log line a burst."""
        self._retries.inc()
        if self._bursts.note("retry"):
            logger.error("the database can not take {} message(s), tried until it does: {}", messages, detail)


class Bursts:
    """Says when to speak of something that repeats: at its first time, then at most once a minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told_s: dict[str, float] = {}
        self._untold: Counts[str] = Counts()

    def note(self, subject: str, number: int = 1) -> int:
        """How many to speak of now; 0 means keep quiet. Subjects must be few."""
        with self._lock:
            self._untold[subject] += number
            now_s = self._clock()
            told_s = self._told_s.get(subject)
            if told_s is not None and now_s - told_s < _BURST_S:
                return 0
            self._told_s[subject] = now_s
            return self._untold.pop(subject)
