"""Is this message of the form that its topic asks for? Asked of every message before the database is.

1. `size`: no larger than its topic allows, before anything else.
2. Availability is exactly `online` or `offline`.
3. An empty payload on a retained topic is no information: somebody cleared it.
4. Everything else is an object in strict JSON. Members are not fixed, so that a newer agent may add some; those of
   state, heartbeat and telemetry are flat, and health has a verdict and checks. A reply has its own members and no
   others, as whoever waits for it demands.
5. Proof of life: what is never retained proves that the device lives now. A retained message may be as old as the
   device's silence, for the broker sends it again to whoever subscribes: a state proves life at the time that it
   states, and availability, which the broker itself may publish as the last will, proves nothing.
6. A report is an envelope; only the device's key can open it, which is `ingest_reports`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from fleet_protocol import strict_json
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import OFFLINE, ONLINE, Reply
from fleet_protocol.schema import from_payload
from fleet_protocol.topics import AVAILABILITY, HEALTH, HEARTBEAT, REPLY, REPORT, STATE, TELEMETRY
from server.ports import Incoming

VERDICTS: Final = ("ok", "warning", "critical", "unknown")


class Screened(NamedTuple):
    """A message of the right form. `seen_s` is when it proves that its device lived, if it does."""

    message: Incoming
    device: str
    kind: str
    seen_s: float | None


def screen(message: Incoming) -> Screened | None:
    """The message if it is of the right form, None if it says nothing; raises ProtocolError."""
    kind, payload = message.address.type, message.payload
    if len(payload) > kind.max_size:
        raise ProtocolError("size", f"{len(payload)} bytes, at most {kind.max_size} are allowed")
    if not payload and kind.retain:
        return None
    seen_s = _SCREENS[kind.name](message)
    return Screened(message, message.address.values["device"], kind.name, seen_s)


def _availability(message: Incoming) -> None:
    if message.payload not in (ONLINE, OFFLINE):
        raise ProtocolError("schema", "availability is neither online nor offline")


def _sample(message: Incoming) -> float:
    _flat(message)
    return message.at_s


def _state(message: Incoming) -> float | None:
    stated = _flat(message).get("time")
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        return None
    return min(message.at_s, float(stated))


def _health(message: Incoming) -> float:
    value = _object(message)
    if value.get("verdict") not in VERDICTS or not isinstance(value.get("checks"), list):
        raise ProtocolError("schema", "health has no verdict or no checks")
    return message.at_s


def _reply(message: Incoming) -> float:
    from_payload(Reply, message.payload, max_size=REPLY.max_size)
    return message.at_s


def _report(message: Incoming) -> float:
    """Nothing yet: an unsigned report proves nothing, so what is said here counts only once it is opened."""
    return message.at_s


def _object(message: Incoming) -> Mapping[str, Any]:
    value = strict_json.loads(message.payload, max_size=message.address.type.max_size)
    if not isinstance(value, dict):
        raise ProtocolError("schema", "the payload is not an object")
    return value


def _flat(message: Incoming) -> Mapping[str, Any]:
    value = _object(message)
    for member in value.values():
        if isinstance(member, dict | list):
            raise ProtocolError("schema", "the payload is not flat")
    return value


_SCREENS: Final[Mapping[str, Callable[[Incoming], float | None]]] = {
    AVAILABILITY.name: _availability,
    STATE.name: _state,
    HEARTBEAT.name: _sample,
    TELEMETRY.name: _sample,
    HEALTH.name: _health,
    REPLY.name: _reply,
    REPORT.name: _report,
}
