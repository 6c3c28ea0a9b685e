"""amqtt's broker with its plugins and with what must differ for a fleet.

Changes against amqtt 0.12.1, each with the reason:
 - a new connection is not sent the retained messages of *other* clients' subscriptions;
 - the table of subscriptions may change while it is walked (a SUBSCRIBE during another client's CONNECT
   otherwise ends that client with a RuntimeError);
 - a connection that ended before its handler had begun to wait for the end is ended, not forgotten;
 - a DISCONNECT that came early is one: no will is published after it;
 - what a client published just before its DISCONNECT is delivered (`mosquitto_pub` does exactly that);
 - sessions of unauthenticated clients are kept, so that a server that is restarted gets the QoS 1
   messages of the meantime; each keeps the newest 1,000.
"""

import asyncio
import sqlite3
from collections.abc import Callable, ItemsView, Iterator
from pathlib import Path
from typing import Any, Final

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import ApplicationMessage, Session

from broker_config.retained_file import RetainedFile

LISTENER: Final = "default"
SESSION_EXPIRY_S: Final = 24 * 3600
QUEUE_MOST: Final = 1_000
"""Messages that wait for one absent client."""


class FleetBroker(Broker):  # type: ignore[misc]  # amqtt has no types
    """An amqtt broker that is handed its connections by `external_connected`."""

    def __init__(self, data_dir: Path | None, complain: Callable[[str], None]) -> None:
        """Needs a running event loop. With `data_dir`, retained messages are kept there."""
        self._complain = complain
        super().__init__(
            BrokerConfig(
                listeners={LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)},
                plugins={f"{__name__}.AcceptAll": {}},
                session_expiry_interval=SESSION_EXPIRY_S,
            )
        )
        self._file = None if data_dir is None else RetainedFile(data_dir / "retained.db")
        self._subscriptions = _Subscriptions()

    async def start(self) -> None:
        """Be ready for connections, with the retained messages of the last time."""
        await super().start()
        if self._file is not None:
            for topic, qos, payload in self._file.all():
                await super().retain_message(None, topic, payload, qos)

    async def shutdown(self) -> None:
        """End every session, publish the wills, and close the file."""
        await super().shutdown()
        if self._file is not None:
            self._file.close()

    async def retain_message(
        self, source_session: Session | None, topic_name: str | None, data: bytes | None, qos: int | None = None
    ) -> None:
        """Retain, or clear with an empty payload, in memory and in the file."""
        await super().retain_message(source_session, topic_name, data, qos)
        if self._file is not None and topic_name is not None:
            try:
                self._file.put(topic_name, qos or 0, bytes(data or b""))
            except sqlite3.Error as error:
                self._complain(f"io: a retained message is in memory only: {error}")

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        owners = self._subscriptions.get(subscription[0], [])
        if any(owner is session for owner, _ in owners):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _client_message_loop(self, client_session: Session, handler: BrokerProtocolHandler) -> None:
        if handler._reader_stopped.is_set():
            await handler.handle_disconnect(None)
        await super()._client_message_loop(client_session, handler)
        await self._deliver_last_words(client_session, handler)

    async def _deliver_last_words(self, client_session: Session, handler: BrokerProtocolHandler) -> None:
        waiting = client_session.delivered_message_queue
        while not waiting.empty():
            message: asyncio.Future[ApplicationMessage] = asyncio.get_running_loop().create_future()
            message.set_result(waiting.get_nowait())
            if not await self._handle_message_delivery(client_session, handler, message):
                return

    async def _handle_disconnect(
        self, client_session: Session, handler: BrokerProtocolHandler, disconnect_waiter: asyncio.Future[Any]
    ) -> None:
        if handler.reader.disconnected:
            client_session.will_flag = False
        await super()._handle_disconnect(client_session, handler, disconnect_waiter)


class AcceptAll(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no types
    """Accepts every client: the listener is on loopback, and signatures carry the security."""

    async def authenticate(self, *, session: Session) -> bool | None:
        """True; leaves the session non-anonymous, so that amqtt keeps it over a reconnect."""
        if not isinstance(session.retained_messages, _NewestQueue):
            session.retained_messages = _NewestQueue()
        return True


class _Subscriptions(dict[str, list[tuple[Session, int]]]):
    """Walks a copy of its keys, because amqtt awaits while it walks."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))

    def items(self) -> ItemsView[str, list[tuple[Session, int]]]:  # type: ignore[override]  # a view of a copy
        return dict(self).items()


class _NewestQueue(asyncio.Queue[ApplicationMessage]):
    """Forgets the oldest message at the bound, where `asyncio.Queue` would stop the broker."""

    async def put(self, item: ApplicationMessage) -> None:
        if self.qsize() >= QUEUE_MOST:
            self.get_nowait()
        self.put_nowait(item)
