"""SHA-256 beside other work: hashing and writing keep two cores busy, with a few buffers between them."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any, Final

Buffer = bytes | memoryview
_BUFFERS: Final = 16


class HashLane:
    """One thread that feeds hashes in the order given. Buffers must not change once they are handed over."""

    def __init__(self) -> None:
        self._queue: Queue[tuple[Any, Buffer] | None] = Queue(_BUFFERS)
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)

    def update(self, digest: Any, data: Buffer) -> None:
        """Hand over a buffer; waits while too many are under way."""
        self._queue.put((digest, data))

    def drain(self) -> None:
        """Return once everything handed over is in its digest."""
        self._queue.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            item[0].update(item[1])
            del item
            self._queue.task_done()


@contextmanager
def hash_lane() -> Iterator[HashLane]:
    """A lane whose thread ends with the block."""
    lane = HashLane()
    lane._thread.start()
    try:
        yield lane
    finally:
        lane._queue.put(None)
        lane._thread.join()


def sha256() -> Any:
    """A fresh SHA-256."""
    return hashlib.sha256()
