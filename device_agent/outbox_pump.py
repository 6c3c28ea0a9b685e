"""Signed reports on their way: from the outbox to the broker, in order, until each is acknowledged."""

from collections.abc import Callable
from typing import Final

from device_agent.inbox import Inbox
from device_agent.log import Log
from device_agent.ports import Link, Outbox
from fleet_protocol import topics
from fleet_protocol.errors import FleetError

_UNDER_WAY_MOST: Final = 16


class OutboxPump:
    """Used by the loop only. The link itself repeats what was not acknowledged when a connection broke."""

    def __init__(self, topic: str, outbox: Outbox, link: Link, inbox: Inbox, log: Log) -> None:
        self._topic, self._outbox, self._link, self._inbox, self._log = topic, outbox, link, inbox, log
        self._under_way: set[int] = set()
        self._dry = False

    def put(self, counter: int, envelope: bytes) -> bool:
        """Keep one more report, and send it when its turn comes. False where it could not be kept."""
        try:
            self._outbox.put(counter, envelope)
        except (OSError, FleetError) as error:
            self._log.error("outbox", f"report {counter} can not be kept: {error}")
            return False
        self._dry = False
        return True

    def connected(self) -> None:
        """Look again at what waits."""
        self._dry = False

    def tend(self) -> None:
        """Hand over as many as may be under way at once."""
        if self._dry or not self._link.connected or len(self._under_way) >= _UNDER_WAY_MOST:
            return
        waiting = [
            (counter, envelope) for counter, envelope in self._outbox.waiting() if counter not in self._under_way
        ]
        room = _UNDER_WAY_MOST - len(self._under_way)
        for counter, envelope in waiting[:room]:
            self._under_way.add(counter)
            self._link.publish(
                self._topic, envelope, qos=topics.REPORT.qos, retain=topics.REPORT.retain, sent=self._sent(counter)
            )
        self._dry = len(waiting) <= room

    def _sent(self, counter: int) -> Callable[[], None]:
        """What the link's thread calls: the loop does the rest."""
        return lambda: self._inbox.put(lambda: self._done(counter))

    def _done(self, counter: int) -> None:
        self._under_way.discard(counter)
        try:
            self._outbox.done(counter)
        except (OSError, FleetError) as error:
            self._log.warning("outbox", f"report {counter} stays and will be sent again: {error}")
