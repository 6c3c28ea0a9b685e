"""Transactions that change retained documents, and their way to the broker.

Rules, cited by number in the tests:

P1. A document reaches the broker only after the transaction that holds it has committed.
P2. Documents reach the broker in the order in which their transactions committed: two threads can not leave an
    older manifest on the broker after a newer one.
P3. A transaction that raises publishes nothing.
P4. Publishing everything again is always allowed: every document is idempotent for its readers.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fleet_protocol.topics import Topics
from server.ports import Link, Store, Work


class Change:
    """One transaction, and the retained documents that it changes."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.documents: dict[str, bytes | None] = {}

    def put_document(self, topic: str, payload: bytes | None) -> None:
        """State what a retained topic must hold from this transaction on; None empties it."""
        self.work.put_document(topic, payload)
        self.documents[topic] = payload


class Publication:
    """Opens such transactions one at a time and publishes what they changed."""

    def __init__(self, store: Store, link: Link, topics: Topics) -> None:
        self._store = store
        self._link = link
        self._topics = topics
        self._lock = threading.Lock()
        self._holds: dict[str, bytes] = {}

    def load(self) -> None:
        """Read from the store what the broker must hold; call once before the first change."""
        with self._lock, self._store.begin() as work:
            self._holds = dict(work.documents())

    @contextmanager
    def begin(self) -> Iterator[Change]:
        """A transaction under rules P1 to P3. Not reentrant: pass the Change on instead."""
        with self._lock:
            with self._store.begin() as work:
                change = Change(work)
                yield change
            for topic, payload in change.documents.items():
                self._remember(topic, payload)
                self._publish(topic, payload or b"")

    def wanted(self, topic: str) -> bytes | None:
        """What the retained topic must hold; None means nothing."""
        return self._holds.get(topic)

    def restore(self, topic: str) -> None:
        """Publish what the topic must hold once more; an empty payload where it must hold nothing."""
        with self._lock:
            self._publish(topic, self._holds.get(topic, b""))

    def restore_all(self) -> int:
        """Publish every document once more (P4); returns how many there are."""
        with self._lock:
            for topic, payload in self._holds.items():
                self._publish(topic, payload)
            return len(self._holds)

    def _remember(self, topic: str, payload: bytes | None) -> None:
        if payload is None:
            self._holds.pop(topic, None)
        else:
            self._holds[topic] = payload

    def _publish(self, topic: str, payload: bytes) -> None:
        self._link.publish(topic, payload, retain=True, qos=self._topics.parse(topic).type.qos)
