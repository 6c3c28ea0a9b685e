"""Keeps the server connected, with a thread of its own.

MQTT 5 is tried first; a broker that does not answer to it is spoken to in 3.1.1. Between attempts the link waits a
random part of a limit that doubles, so that a fleet of servers and devices does not return to a broker all at once, and
two servers that share a client id by mistake do not throw each other out without end.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import Final

from loguru import logger
from paho.mqtt.enums import MQTTProtocolVersion

from fleet_protocol.errors import FleetError, ProtocolError
from fleet_protocol.topics import DEVICE_TOPICS, TOPIC_TYPES, Side, Topics
from server.adapters.mqtt.outbox import Outbox, Outgoing
from server.adapters.mqtt.session import Session
from server.adapters.mqtt.settings import LinkSettings
from server.adapters.mqtt.waker import Waker
from server.ports import Clock, Incoming, Intake

_VERSIONS: Final = (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311)


class MqttLink:
    """A `Link` over MQTT. `start` begins to connect and returns at once."""

    def __init__(
        self, settings: LinkSettings, topics: Topics, clock: Clock, *, luck: Callable[[], float] = random.random
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._clock = clock
        self._luck = luck
        self._outbox = Outbox()
        self._waker = Waker()
        self._stop = threading.Event()
        self._connected = False
        self._proved: MQTTProtocolVersion | None = None
        self._thread: threading.Thread | None = None

    def start(
        self, intake: Intake, *, on_connected: Callable[[bool], None], on_retained: Callable[[str, bytes], None]
    ) -> None:
        """Connect, and stay connected until `stop`. May be called once. The hooks must return at once.

        `on_connected(kept)`: a broker has taken our subscriptions; it may have forgotten every document, and where it
        has not kept our session, it has dropped what devices sent since that ended. `on_retained(topic, payload)`:
        somebody, perhaps the server itself, published on a retained topic that belongs to the server.
        """
        hooks = _Hooks(self._topics, self._clock, intake, on_connected, on_retained)
        self._thread = threading.Thread(target=self._run, args=(hooks,), name="mqtt-link", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what can be sent at once, disconnect, and end the thread."""
        self._stop.set()
        self._waker.wake()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._waker.close()

    def publish(self, topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        """Hand over a message; see `outbox` for what becomes of it while there is no connection."""
        self._outbox.put(Outgoing(topic, payload, qos, retain))
        self._waker.wake()

    @property
    def connected(self) -> bool:
        """Whether a broker has taken the subscriptions of the present connection."""
        return self._connected

    @property
    def waiting(self) -> int:
        """Messages that wait to be published."""
        return len(self._outbox)

    def _run(self, hooks: "_Hooks") -> None:
        version, failures = 0, 0
        while not self._stop.is_set():
            began_s = time.monotonic()
            session = self._attempt(_VERSIONS[version], hooks)
            if session is not None and session.accepted:
                self._proved = _VERSIONS[version]
                if time.monotonic() - began_s > self._settings.backoff_most_s:
                    failures = 0
            elif session is not None and session.other_version:
                version = 1 - version
                if version:
                    continue
            limit_s = min(self._settings.backoff_most_s, self._settings.backoff_least_s * 2 ** min(failures, 30))
            failures += 1
            self._stop.wait(self._luck() * limit_s)

    def _attempt(self, version: MQTTProtocolVersion, hooks: "_Hooks") -> Session | None:
        """One connection from begin to end; None where none could be made."""
        session, place = None, f"{self._settings.host}:{self._settings.port}"
        try:
            session = self._session(version, hooks)
            session.run(self._stop)
            if not self._stop.is_set():
                logger.warning("broker {}: {}", place, session.reason)
        except (OSError, FleetError) as error:
            logger.warning("broker {}: {}", place, error)
        except Exception:  # noqa: BLE001 - the server without its link is deaf: log the defect and connect again
            logger.exception("broker {}: the connection failed by a defect", place)
        finally:
            self._connected = False
        return session

    def _session(self, version: MQTTProtocolVersion, hooks: "_Hooks") -> Session:
        def connected(kept: bool) -> None:
            self._connected = True
            logger.info("broker {}:{} connected, {}", self._settings.host, self._settings.port, version.name)
            hooks.on_connected(kept)

        filters = subscriptions(self._topics)
        return Session(
            self._settings,
            version,
            filters,
            self._outbox,
            self._waker,
            proved=version is self._proved,
            on_connected=connected,
            on_message=hooks.on_message,
        )


class _Hooks:
    """Sorts what the broker delivers: from devices to the intake, on the server's own topics to the guardian."""

    def __init__(
        self,
        topics: Topics,
        clock: Clock,
        intake: Intake,
        on_connected: Callable[[bool], None],
        on_retained: Callable[[str, bytes], None],
    ) -> None:
        self._topics = topics
        self._clock = clock
        self._intake = intake
        self.on_connected = on_connected
        self._on_retained = on_retained

    def on_message(self, topic: str, payload: bytes, ack: Callable[[], None]) -> bool:
        """Whether the message found its place; one that is not addressed in our grammar is refused and released."""
        try:
            address = self._topics.parse(topic)
        except ProtocolError as error:
            self._intake.refuse(error.code, error.detail)
            ack()
            return True
        if address.type.publisher is Side.DEVICE:
            return self._intake.offer(Incoming(address=address, payload=payload, at_s=self._clock.now_s(), ack=ack))
        self._on_retained(topic, payload)
        ack()
        return True


def subscriptions(topics: Topics) -> list[tuple[str, int]]:
    """Everything that devices publish, and the server's own retained topics, each with its QoS.

    Retained topics are read at QoS 0: a subscription delivers all of them at once, and at QoS 1 a broker with the
    usual limits on its queues would drop most.
    """
    own = [kind for kind in TOPIC_TYPES if kind.publisher is Side.SERVER and kind.retain]
    return [(topics.filter(kind), 0 if kind.retain else kind.qos) for kind in (*DEVICE_TOPICS, *own)]
