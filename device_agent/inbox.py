"""The one queue of the resident: whatever happens anywhere is put here, and done by the loop in order."""

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

Happening = Callable[[], None]


class Inbox:
    """Unbounded, so that nobody who puts ever waits; whoever puts on behalf of a peer bounds itself first."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Happening] = SimpleQueue()

    def put(self, happening: Happening) -> None:
        """Have the loop call it. From any thread, and from a signal handler."""
        self._queue.put(happening)

    def take(self, until_s: float) -> Happening | None:
        """The next happening, or None once the monotonic moment has come. Sleeps in the kernel meanwhile."""
        try:
            return self._queue.get(timeout=max(0.0, until_s - time.monotonic()))
        except Empty:
            return None
