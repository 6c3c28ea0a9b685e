"""The agent's link to a broker in memory, and listeners for tests of any link."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from device_agent.adapters.outgoing import Message, Outgoing


@dataclass
class HeardListener:
    """Notes everything that a link tells; messages by topic."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)
    too_large: list[tuple[str, int]] = field(default_factory=list)
    connects: int = 0
    losses: list[str] = field(default_factory=list)

    def received(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, payload))

    def oversized(self, topic: str, size: int) -> None:
        self.too_large.append((topic, size))

    def connected(self) -> None:
        self.connects += 1

    def lost(self, why: str) -> None:
        self.losses.append(why)

    def of(self, topic: str) -> list[bytes]:
        """The payloads of one topic, in order."""
        return [payload for name, payload in list(self.messages) if name == topic]

    def distinct(self, topic: str) -> list[bytes]:
        """The same without repetitions: QoS 1 is at least once, and amqtt sends what it retains twice."""
        return list(dict.fromkeys(self.of(topic)))


class FakeBroker:
    """Retained messages and subscriptions by name, without wildcards or a network."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.published: list[tuple[str, bytes]] = []
        self.links: list[FakeLink] = []
        self.up = True
        self.lock = threading.RLock()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """As another client would."""
        with self.lock:
            self.published.append((topic, payload))
            if retain:
                self.retained[topic] = payload
                if not payload:
                    del self.retained[topic]
            for link in self.links:
                link.deliver(topic, payload)

    def kill(self) -> None:
        """All connections break; what is retained is lost."""
        self.up = False
        self.retained.clear()
        for link in self.links:
            link.break_off()

    def restart(self) -> None:
        """Take connections again."""
        self.up = True
        for link in self.links:
            link.join()


class FakeLink:
    """device_agent.ports.Link without a thread: everything happens in the caller's."""

    def __init__(self, broker: FakeBroker, listener: HeardListener, availability: str) -> None:
        self._broker, self._listener, self._availability = broker, listener, availability
        self._outgoing = Outgoing()
        self._subscribed: set[str] = set()
        self._started = False

    @property
    def connected(self) -> bool:
        return self._outgoing.online

    def start(self) -> None:
        self._started = True
        self._broker.links.append(self)
        if self._broker.up:
            self.join()

    def stop(self) -> None:
        if self.connected:
            self._broker.publish(self._availability, b"offline", retain=True)
        self._outgoing.online = False
        if self in self._broker.links:
            self._broker.links.remove(self)
        self._outgoing.close()

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, sent: Callable[[], None] | None = None
    ) -> None:
        self._outgoing.put(Message(topic, payload, qos, retain, sent))
        self._flush()

    def subscribe(self, filters: tuple[str, ...]) -> None:
        self._outgoing.subscribe(filters)
        self._flush()

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        self._outgoing.unsubscribe(filters)
        self._flush()

    def deliver(self, topic: str, payload: bytes) -> None:
        if self.connected and topic in self._subscribed:
            self._listener.received(topic, payload)

    def break_off(self) -> None:
        if self.connected:
            self._outgoing.online = False
            self._listener.lost("killed")
            self._broker.publish(self._availability, b"offline", retain=True)

    def join(self) -> None:
        self._outgoing.online = True
        self._subscribed.clear()
        self._make(self._outgoing.all_filters())
        self._broker.publish(self._availability, b"online", retain=True)
        self._listener.connected()
        self._flush()

    def _flush(self) -> None:
        if not self.connected:
            return
        made, dropped = self._outgoing.take_changes()
        self._subscribed -= set(dropped)
        self._make(made)
        for message in self._outgoing.take():
            self._broker.publish(message.topic, message.payload, retain=message.retain)
            if message.sent is not None:
                message.sent()

    def _make(self, filters: list[str]) -> None:
        for name in filters:
            self._subscribed.add(name)
            if name in self._broker.retained:
                self._listener.received(name, self._broker.retained[name])
