"""What devices sent and nobody has stored yet: bounded, in order of arrival.

Waiting is by condition variable: the writer sleeps until a message comes, then a little longer so that messages which
come together are committed together, and no longer once enough of them are there.
"""

import threading
import time
from collections import deque

from server.ports import Incoming


class Inbox:
    """A queue between the link's thread and the writer."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._messages: deque[Incoming] = deque()
        self._bytes = 0
        self._closed = False
        self._wanted = 1
        """How many messages the writer waits for."""
        self._changed = threading.Condition()

    def offer(self, message: Incoming) -> bool:
        """Take a message, or return False where the bound in messages or bytes is reached. Never blocks for long."""
        size = len(message.payload)
        with self._changed:
            full = len(self._messages) >= self._most or self._bytes + size > self._most_bytes
            if self._closed or (full and self._messages):
                return False
            self._messages.append(message)
            self._bytes += size
            if len(self._messages) == self._wanted:
                self._changed.notify()
        return True

    def take(self, most: int, *, enough: int, linger_s: float) -> list[Incoming]:
        """The oldest messages, at most `most`; waits for the first. Empty only after `close`, once all are taken.

        With fewer than `enough` there it waits `linger_s` for others to come.
        """
        with self._changed:
            self._wait_for(1, None)
            if not self._closed:
                self._wait_for(enough, linger_s)
            batch = [self._messages.popleft() for _ in range(min(most, len(self._messages)))]
            self._bytes -= sum(len(message.payload) for message in batch)
            return batch

    def close(self) -> None:
        """Take no more; whoever waits is woken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._messages)

    def _wait_for(self, count: int, timeout_s: float | None) -> None:
        self._wanted = count
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while len(self._messages) < count and not self._closed:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return
            self._changed.wait(left_s)
