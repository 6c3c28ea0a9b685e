"""The resident's MQTT link: connects, keeps connecting, and hands messages to the connection that there is.

1. MQTT 5 is tried first. A broker that does not speak it says so, or hangs up, or says nothing at all (amqtt, for a
   CONNECT with a will): after any of these the next attempt uses the other version. What worked is remembered.
2. The session outlives the connection (clean start false), and subscriptions are made again at every connect.
3. Messages at QoS 1 wait, bounded, while there is no connection; of a retained topic only the newest. QoS 0 does not.
4. After a loss the next attempt comes after a full-jitter backoff, which only a connection that lasted sets back. Each
   attempt in a row that comes to nothing makes the next one wait longer for answers: a slow link is no dead broker.
   Each of them is a warning in the log; the loss of a connection that the broker took is none.
"""

import random
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from device_agent.adapters.files import write_atomic
from device_agent.adapters.mqtt_connection import Connection
from device_agent.adapters.outgoing import Message, Outgoing
from device_agent.core.backoff import delay_s
from device_agent.log import Log
from device_agent.ports import LinkListener
from device_agent.settings import AgentSettings

_VERSIONS: Final = {b"5": 5, b"4": 4}
_LASTED_S: Final = 30.0
_FIRST_S: Final = 1.0
_JOIN_S: Final = 4.0


class MqttLink:
    """device_agent.ports.Link on paho, in one thread of its own."""

    def __init__(
        self, settings: AgentSettings, listener: LinkListener, log: Log, *, luck: Callable[[], float] = random.random
    ) -> None:
        self._settings, self._listener, self._log, self._luck = settings, listener, log, luck
        self._remembered = settings.state_dir / "mqtt-version"
        self._version, self._proved = 5, False
        self._outgoing = Outgoing()
        self._answered = False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker has taken the connection and it is not known to be lost."""
        return self._outgoing.online

    def start(self) -> None:
        """Connect, and keep connecting, until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Publish `offline`, disconnect and end the thread; a few seconds at the most."""
        self._outgoing.stop()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
        if not self._thread.is_alive():
            self._outgoing.close()

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, sent: Callable[[], None] | None = None
    ) -> None:
        """Hand over a message (rule 3). `sent` is called in the link's thread once the broker acknowledged it."""
        self._outgoing.put(Message(topic, payload, qos, retain, sent))

    def subscribe(self, filters: tuple[str, ...]) -> None:
        """Keep these subscriptions, at QoS 1, over reconnects; one that is there already is asked for again."""
        self._outgoing.subscribe(filters)

    def unsubscribe(self, filters: tuple[str, ...]) -> None:
        """Drop these subscriptions."""
        self._outgoing.unsubscribe(filters)

    def _run(self) -> None:
        self._recall()
        while not self._outgoing.stopping:
            began_s = time.monotonic()
            connection = Connection(
                self._settings,
                self._outgoing,
                self._listener,
                self._log,
                version=self._version,
                proved=self._proved,
                failures=self._failures,
                answered=self._remember,
            )
            self._answered = False
            try:
                connection.run()
            except Exception as error:  # noqa: BLE001 - whatever a hostile broker makes paho raise, the link goes on
                connection.why = connection.why or f"{type(error).__name__}: {error}"
            self._failures = 0 if time.monotonic() - began_s > _LASTED_S else self._failures + 1
            self._conclude(connection)

    def _conclude(self, connection: Connection) -> None:
        """Learn from how a connection ended, and wait before the next."""
        if self._outgoing.stopping:
            return
        switched = self._learn(connection)
        expected = connection.taken or switched
        (self._log.info if expected else self._log.warning)("link", f"{self._settings.broker.url}: {connection.why}")
        if not switched:
            most_s = self._settings.intervals.reconnect_most_s
            self._wait(delay_s(self._failures, self._luck(), first_s=_FIRST_S, most_s=most_s))

    def _learn(self, connection: Connection) -> bool:
        """Rule 1. True where the other version is to be tried at once."""
        if self._answered or not connection.reached:
            return False
        at_once = not self._proved and self._version == 5
        self._version, self._proved = 9 - self._version, False
        return at_once

    def _wait(self, delay_s: float) -> None:
        """Sleep, but end with the link."""
        until_s = time.monotonic() + delay_s
        poll = select.poll()
        poll.register(self._outgoing.bell, select.POLLIN)
        while not self._outgoing.stopping and (left_s := until_s - time.monotonic()) > 0:
            if poll.poll(left_s * 1000):
                self._outgoing.hush()

    def _remember(self) -> None:
        self._answered = True
        if self._proved:
            return
        self._proved = True
        try:
            write_atomic(self._remembered, b"%d" % self._version, durable=False)
        except OSError as error:
            self._log.warning("link", f"{self._remembered}: {error.strerror}")

    def _recall(self) -> None:
        try:
            remembered = self._remembered.read_bytes()
        except OSError:
            return
        if remembered in _VERSIONS:
            self._version, self._proved = _VERSIONS[remembered], True
