"""What the agent wants of the broker: messages and subscriptions, handed from any thread to the link's own."""

import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

WAITING_MOST: Final = 256


@dataclass(slots=True)
class Message:
    """One message to publish; `sent` is called once the broker acknowledged it."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    sent: Callable[[], None] | None


class Outgoing:
    """Bounded: of a retained topic only the newest message waits, and beyond 256 the oldest is dropped."""

    def __init__(self) -> None:
        self.bell: Final = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when there is something to take; polled by the link's thread beside its socket."""
        self._lock = threading.Lock()
        self._messages: deque[Message] = deque()
        self._filters: dict[str, None] = {}
        self._dropped_filters: list[str] = []
        self._new_filters: list[str] = []
        self._stopping = False
        self._closed = False
        self.online = False
        """Set by the link's thread while there is a connection; without one nothing at QoS 0 is kept."""

    def put(self, message: Message) -> None:
        """Let the message wait for the link."""
        if message.qos == 0 and not self.online:
            return
        with self._lock:
            if message.retain:
                self._messages = deque(m for m in self._messages if not (m.retain and m.topic == message.topic))
            self._messages.append(message)
            self._bound()
        self.ring()

    def take(self) -> list[Message]:
        """Everything that waits, oldest first."""
        with self._lock:
            taken = list(self._messages)
            self._messages.clear()
        return taken

    def give_back(self, messages: list[Message]) -> None:
        """Let messages wait again that were taken and not acknowledged; those at QoS 0 are gone.

        A retained one is dropped where a newer one of its topic waits.
        """
        with self._lock:
            newer = {m.topic for m in self._messages if m.retain}
            kept = [m for m in messages if m.qos and not (m.retain and m.topic in newer)]
            self._messages.extendleft(reversed(kept))
            self._bound()

    def _bound(self) -> None:
        """What nobody waits for goes first: whoever asked to be told of the sending keeps count himself."""
        while len(self._messages) > WAITING_MOST:
            index = next((i for i, message in enumerate(self._messages) if message.sent is None), 0)
            del self._messages[index]

    def subscribe(self, filters: tuple[str, ...]) -> None:
        """Add filters, asked for anew even where they are already kept: the broker then sends what it retains."""
        with self._lock:
            self._filters.update(dict.fromkeys(filters))
            self._new_filters += filters
        self.ring()

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        """Take filters away."""
        with self._lock:
            for name in filters:
                self._filters.pop(name, None)
            self._dropped_filters += filters
        self.ring()

    def all_filters(self) -> list[str]:
        """Every filter to make at a new connection; the changes so far are part of it."""
        with self._lock:
            self._new_filters.clear()
            return list(self._filters)

    def take_changes(self) -> tuple[list[str], list[str]]:
        """Filters to make and filters to drop since the last call."""
        with self._lock:
            made = [name for name in dict.fromkeys(self._new_filters) if name in self._filters]
            dropped = [name for name in dict.fromkeys(self._dropped_filters) if name not in self._filters]
            self._new_filters.clear()
            self._dropped_filters.clear()
        return made, dropped

    @property
    def stopping(self) -> bool:
        """Whether the link is to say goodbye."""
        return self._stopping

    def stop(self) -> None:
        """Ask the link to say goodbye."""
        self._stopping = True
        self.ring()

    def ring(self) -> None:
        """Wake the link's thread."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self.bell, 1)

    def hush(self) -> None:
        """Note that the bell was heard."""
        os.eventfd_read(self.bell)

    def close(self) -> None:
        """Give the descriptor back; nothing rings after it."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self.bell)
