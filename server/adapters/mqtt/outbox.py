"""What waits to be published, over disconnects.

1. Of a retained topic only the newest payload waits: it holds state, and the older one is void.
2. Everything else goes out in the order in which it was put. A retained topic that is put again goes to the end,
   so that a document never overtakes the ones that were put before it.
3. At the bound the oldest message that is not retained is dropped and counted: an order that came too late is void.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from typing import Final

ORDERS_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message for the broker."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class Outbox:
    """A queue of outgoing messages; any thread may put, the link's thread takes."""

    def __init__(self, orders_most: int = ORDERS_MOST) -> None:
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str | int, Outgoing] = OrderedDict()
        self._numbers = count()
        self._orders: OrderedDict[int, None] = OrderedDict()
        self._orders_most = orders_most
        self.dropped = 0
        """How many messages were dropped at the bound."""

    def put(self, message: Outgoing) -> None:
        """Queue a message; never blocks."""
        with self._lock:
            if message.retain:
                self._waiting.pop(message.topic, None)
                self._waiting[message.topic] = message
                return
            number = next(self._numbers)
            self._waiting[number] = message
            self._orders[number] = None
            if len(self._orders) > self._orders_most:
                self._waiting.pop(self._orders.popitem(last=False)[0])
                self.dropped += 1

    def take(self) -> Outgoing | None:
        """The next message, or None."""
        with self._lock:
            if not self._waiting:
                return None
            key, message = self._waiting.popitem(last=False)
            if isinstance(key, int):
                self._orders.pop(key)
            return message

    def give_back(self, messages: list[Outgoing]) -> None:
        """Put taken messages in front again, in their order, because the broker did not acknowledge them (rule 1)."""
        with self._lock:
            for message in reversed(messages):
                key: str | int = message.topic if message.retain else next(self._numbers)
                if key in self._waiting:
                    continue
                self._waiting[key] = message
                self._waiting.move_to_end(key, last=False)
                if isinstance(key, int):
                    self._orders[key] = None
                    self._orders.move_to_end(key, last=False)

    def __len__(self) -> int:
        return len(self._waiting)
