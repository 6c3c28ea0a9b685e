"""Asks one device for one thing over MQTT and waits for its answer.

Rules, cited by number in the tests:

Q1. A command is signed, names its device, carries a fresh id and an expiry, and is never retained.
Q2. An answer counts only on the topic of the device that was asked, under the id of a command that waits. Everything
    else is dropped and counted.
Q3. Nothing waits for ever: a command without an answer ends in `offline`, and its late answer is dropped.
"""

import secrets
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from fleet_protocol.envelope import COMMAND_TYPE
from fleet_protocol.errors import FleetError, PolicyError, ProtocolError, error_of
from fleet_protocol.limits import REPLY_SIZE
from fleet_protocol.messages import Command, CommandName, Reply
from fleet_protocol.payload import to_payload
from fleet_protocol.schema import from_payload
from fleet_protocol.timestamps import format_time
from fleet_protocol.topics import COMMAND, Topics
from server.ports import Clock, Link
from server.services.catalogue import Catalogue
from server.services.keyring import Keyring
from server.services.manifests import sign_document

_SKEW_S: Final = 30
"""A device's clock may be this far ahead and still accept the command."""
PENDING_MOST: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What one device is asked for."""

    name: CommandName
    package: str | None = None
    service: str | None = None
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Pending:
    """A command that was sent."""

    id: str
    device: str
    answer: "Future[Reply]"


class Commands:
    """Requests and replies, by id."""

    def __init__(
        self,
        link: Link,
        catalogue: Catalogue,
        keyring: Keyring,
        topics: Topics,
        *,
        fleet: str,
        timeout_s: float,
        clock: Clock,
    ) -> None:
        self._link = link
        self._catalogue = catalogue
        self._keyring = keyring
        self._topics = topics
        self._fleet = fleet
        self.timeout_s = timeout_s
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[str, Pending] = {}
        self.dropped = 0

    def export(self, registry: CollectorRegistry) -> None:
        """Show what waits and what was dropped to Prometheus."""
        waiting = Gauge("fairlead_commands_waiting", "Commands that wait for an answer", registry=registry)
        waiting.set_function(lambda: float(len(self._pending)))
        dropped = Gauge("fairlead_replies_dropped_total", "Answers that nobody waited for", registry=registry)
        dropped.set_function(lambda: float(self.dropped))

    def send(self, device: str, ask: Ask) -> Pending:
        """Sign and publish the command (Q1).

        Raises PolicyError `offline` where the server itself has no broker, `setup` or `keys` where it cannot sign.
        """
        role = self._catalogue.require().root.roles["deployment"]
        if not self._link.connected:
            raise PolicyError("offline", "the server has no connection to its broker at the moment; try again")
        now_s = self._clock.now_s()
        command = Command(
            fleet=self._fleet,
            device=device,
            id=f"c-{secrets.token_hex(8)}",
            name=ask.name,
            issued=format_time(now_s),
            expires=format_time(now_s + self.timeout_s + _SKEW_S + 1),
            package=ask.package,
            service=ask.service,
            lines=ask.lines,
        )
        document = sign_document(to_payload(command), COMMAND_TYPE, role, self._keyring)
        pending = Pending(command.id, device, Future())
        with self._lock:
            if len(self._pending) >= PENDING_MOST:
                raise PolicyError("offline", f"{PENDING_MOST} commands wait for answers already; try again later")
            self._pending[command.id] = pending
        self._link.publish(self._topics.of(COMMAND, device=device), document, retain=False, qos=COMMAND.qos)
        return pending

    def answered(self, device: str, payload: bytes) -> bool:
        """Take one message from a reply topic; False where nobody waits for it (Q2). Never raises for its content."""
        try:
            reply = from_payload(Reply, payload, max_size=REPLY_SIZE)
        except ProtocolError:
            return self._drop()
        with self._lock:
            pending = self._pending.get(reply.id)
            if pending is None or pending.device != device:
                return self._drop()
            del self._pending[reply.id]
        pending.answer.set_result(reply)
        return True

    def wait(self, pending: Pending, timeout_s: float | None = None) -> Reply:
        """The device's answer; raises PolicyError `offline` after the timeout (Q3), or the device's own error."""
        try:
            reply = pending.answer.result(self.timeout_s if timeout_s is None else max(timeout_s, 0.0))
        except TimeoutError:
            raise PolicyError("offline", f"{pending.device} did not answer within {self.timeout_s:g} s") from None
        finally:
            self.forget(pending)
        if reply.code is not None:
            raise error_of(reply.code, reply.detail)
        return reply

    def outcome(self, pending: Pending, timeout_s: float) -> Reply | FleetError:
        """The answer, or why there is none, as a value; for asking many at once."""
        try:
            return self.wait(pending, timeout_s)
        except FleetError as error:
            return error

    def forget(self, pending: Pending) -> None:
        """Wait no longer; a late answer will be dropped."""
        with self._lock:
            self._pending.pop(pending.id, None)

    def _drop(self) -> bool:
        self.dropped += 1
        return False
