"""The server's link without a network, and the broker behind it in memory.

It keeps what the contract promises: messages wait over disconnects, of a retained topic only the newest; a message
that was not acknowledged is delivered again on the next connection.
"""

from collections.abc import Callable
from functools import partial

from fleet_protocol.errors import ProtocolError
from fleet_protocol.topics import Side, Topics
from server.ports import Clock, Incoming, Intake


class FakeBroker:
    """What a broker would hold and has passed on."""

    def __init__(self) -> None:
        self.up = True
        self.retained: dict[str, bytes] = {}
        self.published: list[tuple[str, bytes, bool]] = []
        """Everything in its order: topic, payload, retain."""
        self.links: list[FakeServerLink] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """As any client: keep it if it is to be retained, and pass it on."""
        self.published.append((topic, payload, retain))
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        for link in self.links:
            link.deliver(topic, payload, qos)

    def kill(self) -> None:
        """Every connection is lost; retained messages and sessions are kept."""
        self.up = False
        for link in self.links:
            link.lose()

    def restart(self) -> None:
        """Take connections again."""
        self.up = True
        for link in self.links:
            link.find()


class FakeServerLink:
    """A `Link` whose every step happens in the caller's thread."""

    def __init__(self, broker: FakeBroker, topics: Topics, clock: Clock) -> None:
        self._broker = broker
        self._topics = topics
        self._clock = clock
        self._waiting: dict[str | int, tuple[str, bytes, bool, int]] = {}
        self._numbers = 0
        self._unacknowledged: dict[int, tuple[str, bytes]] = {}
        self._intake: Intake | None = None
        self._known = False
        self.connected = False

    def start(
        self, intake: Intake, *, on_connected: Callable[[bool], None], on_retained: Callable[[str, bytes], None]
    ) -> None:
        """Connect if the broker is up."""
        self._intake, self._on_connected, self._on_retained = intake, on_connected, on_retained
        self._broker.links.append(self)
        self.find()

    def stop(self) -> None:
        """Disconnect for good."""
        self.lose()
        if self in self._broker.links:
            self._broker.links.remove(self)

    def publish(self, topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        """Send now, or keep until the broker is found."""
        self._numbers += 1
        key = topic if retain else self._numbers
        self._waiting.pop(key, None)
        self._waiting[key] = (topic, payload, retain, qos)
        self._send()

    def find(self) -> None:
        """The broker takes the connection: deliver again, deliver what is retained, send what waits."""
        if not self._broker.up or self.connected:
            return
        self.connected = True
        kept, self._known = self._known, True
        self._on_connected(kept)
        unacknowledged, self._unacknowledged = self._unacknowledged, {}
        for topic, payload in unacknowledged.values():
            self.deliver(topic, payload, 1)
        for topic, payload in list(self._broker.retained.items()):
            self.deliver(topic, payload, 0)
        self._send()

    def lose(self) -> None:
        """The connection is gone."""
        self.connected = False

    def deliver(self, topic: str, payload: bytes, qos: int) -> None:
        """What the broker passes on to this link."""
        self._numbers += 1
        number = self._numbers
        if qos:
            self._unacknowledged[number] = (topic, payload)
        ack = partial(self._unacknowledged.pop, number, None)
        if not self.connected or self._intake is None:
            return
        try:
            address = self._topics.parse(topic)
        except ProtocolError as error:
            self._intake.refuse(error.code, error.detail)
            ack()
            return
        if address.type.publisher is Side.DEVICE:
            self._intake.offer(Incoming(address=address, payload=payload, at_s=self._clock.now_s(), ack=ack))
        elif address.type.retain:
            self._on_retained(topic, payload)
            ack()

    def _send(self) -> None:
        while self.connected and self._waiting:
            topic, payload, retain, qos = self._waiting.pop(next(iter(self._waiting)))
            self._broker.publish(topic, payload, retain=retain, qos=qos)
