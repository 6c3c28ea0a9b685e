"""amqtt's broker with its plugins and with what must differ for a fleet.

Changes against amqtt 0.12.1, each with the reason:
 - a new connection is not sent the retained messages of *other* clients' subscriptions;
 - the table of subscriptions may change while it is walked (a SUBSCRIBE during another client's CONNECT
   otherwise ends that client with a RuntimeError);
 - sessions of unauthenticated clients are kept, so that a server that is restarted gets the QoS 1
   messages of the meantime; each keeps the newest 1,000.
"""

import asyncio
from collections.abc import ItemsView, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from amqtt.broker import Broker, BrokerContext, RetainedApplicationMessage
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin
from amqtt.session import ApplicationMessage, Session

from broker_config.retained_file import RetainedFile

LISTENER: Final = "default"
SESSION_EXPIRY_S: Final = 24 * 3600
QUEUE_MOST: Final = 1_000
"""Messages that wait for one absent client."""


class FleetBroker(Broker):  # type: ignore[misc]  # amqtt has no types
    """An amqtt broker that is handed its connections by `external_connected`."""

    def __init__(self, data_dir: Path | None) -> None:
        """Needs a running event loop. With `data_dir`, retained messages are kept there."""
        plugins: dict[str, Any] = {f"{__name__}.AcceptAll": {}}
        if data_dir is not None:
            plugins[f"{__name__}.KeepRetained"] = {"path": str(data_dir / "retained.db")}
        super().__init__(
            BrokerConfig(
                listeners={LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)},
                plugins=plugins,
                session_expiry_interval=SESSION_EXPIRY_S,
            )
        )
        self._subscriptions = _Subscriptions()

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        owners = self._subscriptions.get(subscription[0], [])
        if any(owner is session for owner, _ in owners):
            await super()._publish_retained_messages_for_subscription(subscription, session)


class AcceptAll(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no types
    """Accepts every client: the listener is on loopback, and signatures carry the security."""

    async def authenticate(self, *, session: Session) -> bool | None:
        """True; leaves the session non-anonymous, so that amqtt keeps it over a reconnect."""
        if not isinstance(session.retained_messages, _NewestQueue):
            session.retained_messages = _NewestQueue()
        return True


class KeepRetained(BasePlugin[BrokerContext]):  # type: ignore[misc]  # amqtt has no types
    """Writes retained messages to a file and reads them back before the broker listens."""

    @dataclass
    class Config:
        """Where the file is."""

        path: str

    def __init__(self, context: BrokerContext) -> None:
        super().__init__(context)
        self._file = RetainedFile(Path(self.config.path))

    async def on_broker_pre_start(self) -> None:
        """Retain again what the file holds."""
        for topic, qos, payload in list(self._file.all()):
            await self.context.retain_message(topic, payload, qos)

    async def on_broker_retained_message(
        self, *, client_id: str | None, retained_message: RetainedApplicationMessage
    ) -> None:
        """Follow a change; messages with a `client_id` are queued for that client, not retained."""
        if client_id is None:
            message = retained_message
            self._file.put(message.topic, message.qos or 0, bytes(message.data))

    async def close(self) -> None:
        """Close the file."""
        self._file.close()


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
