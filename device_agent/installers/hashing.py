"""SHA-256 beside other work: hashing and writing keep two cores busy, with a few buffers between them."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any, Final

Buffer = bytes | memoryview
_BATCH_BYTES: Final = 512 * 1024
"""What is handed over at once: a hand-over costs as much as hashing some ten kilobytes."""
_BATCHES: Final = 2
"""More would take memory and be no faster."""
_KEPT_BYTES: Final = 8 * 1024 * 1024


class HashLane:
    """One thread that feeds hashes in the order given. Buffers must not change once they are handed over."""

    def __init__(self) -> None:
        self._queue: Queue[list[tuple[Any, Buffer]] | None] = Queue(_BATCHES)
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._batch: list[tuple[Any, Buffer]] = []
        self._batch_bytes = 0

    def update(self, digest: Any, data: Buffer) -> None:
        """Hand over a buffer; waits while too many are under way."""
        self._batch.append((digest, data))
        self._batch_bytes += len(data)
        if self._batch_bytes >= _BATCH_BYTES:
            self._hand_over()

    def drain(self) -> None:
        """Return once everything handed over is in its digest."""
        self._hand_over()
        self._queue.join()

    def _hand_over(self) -> None:
        if not self._batch:
            return
        self._queue.put(self._batch)
        self._batch, self._batch_bytes = [], 0

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            for digest, data in batch:
                digest.update(data)
            del batch
            self._queue.task_done()
        self._queue.task_done()


@contextmanager
def hash_lane() -> Iterator[HashLane]:
    """A lane whose thread ends with the block; by then everything handed over is in its digest."""
    _keep_freed_buffers()
    lane = HashLane()
    lane._thread.start()
    try:
        yield lane
    finally:
        lane._hand_over()
        lane._queue.put(None)
        lane._thread.join()


def _keep_freed_buffers() -> None:
    """Have the next buffer made of the last one's memory: glibc would give it back to the kernel, and ask for it again.

    It keeps up to twice the largest block that was ever freed (mallopt(3), M_MMAP_THRESHOLD). This one is only asked
    for and never written, so that it takes no memory itself. Other C libraries do not mind.
    """
    bytes(_KEPT_BYTES)


def sha256() -> Any:
    """A fresh SHA-256."""
    return hashlib.sha256()
