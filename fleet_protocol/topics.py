"""The only place that spells a topic.

A topic type carries everything that depends on it: who publishes, who reads, QoS, retain
flag and size cap. Broker configuration, subscriptions and size checks are derived from it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fleet_protocol import limits
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import check_id, is_id, shown

DEFAULT_PREFIX: Final = "fleet/v1"
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
_ROLE: Final = re.compile(r"[A-Za-z0-9%._-]{1,256}")


class Side(StrEnum):
    """Who publishes a topic."""

    SERVER = "server"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class TopicType:
    """One kind of topic: its pattern below the prefix and the rules of its messages."""

    name: str
    pattern: str
    publisher: Side
    qos: int
    retain: bool
    max_size: int
    device_reads: bool
    """Whether a device may subscribe: `{device}` in the pattern then means its own id."""


def _server(name: str, pattern: str, max_size: int, *, retain: bool = True) -> TopicType:
    return TopicType(name, pattern, Side.SERVER, 1, retain, max_size, device_reads=True)


def _device(name: str, max_size: int, *, qos: int = 1, retain: bool = False) -> TopicType:
    return TopicType(name, f"devices/{{device}}/{name}", Side.DEVICE, qos, retain, max_size, device_reads=False)


ROOT: Final = _server("root", "trust/root/{version}", limits.ROOT_SIZE)
TIMESTAMP: Final = _server("timestamp", "trust/timestamp", limits.TIMESTAMP_SIZE)
SNAPSHOT: Final = _server("snapshot", "trust/snapshot/{version}", limits.SNAPSHOT_SIZE)
TARGETS: Final = _server("targets", "trust/targets/{version}", limits.TARGETS_SIZE)
DELEGATED: Final = _server("delegated", "trust/delegated/{role}/{version}", limits.TARGETS_SIZE)
MANIFEST: Final = _server("manifest", "groups/{group}/manifest", limits.MANIFEST_SIZE)
ASSIGNMENT: Final = _server("assignment", "devices/{device}/assignment", limits.ASSIGNMENT_SIZE)
COMMAND: Final = _server("command", "devices/{device}/command", limits.COMMAND_SIZE, retain=False)
AVAILABILITY: Final = _device("availability", limits.AVAILABILITY_SIZE, retain=True)
STATE: Final = _device("state", limits.STATE_SIZE, retain=True)
HEARTBEAT: Final = _device("heartbeat", limits.SAMPLE_SIZE, qos=0)
TELEMETRY: Final = _device("telemetry", limits.SAMPLE_SIZE, qos=0)
HEALTH: Final = _device("health", limits.HEALTH_SIZE)
REPORT: Final = _device("report", limits.REPORT_SIZE)
REPLY: Final = _device("reply", limits.REPLY_SIZE)

TOPIC_TYPES: Final = (
    ROOT,
    TIMESTAMP,
    SNAPSHOT,
    TARGETS,
    DELEGATED,
    MANIFEST,
    ASSIGNMENT,
    COMMAND,
    AVAILABILITY,
    STATE,
    HEARTBEAT,
    TELEMETRY,
    HEALTH,
    REPORT,
    REPLY,
)
DEVICE_TOPICS: Final = tuple(kind for kind in TOPIC_TYPES if kind.publisher is Side.DEVICE)

_Named = tuple[TopicType, tuple[tuple[int, str], ...]]
"""A topic type, and the place and name of each of its placeholders."""


def _shapes() -> Mapping[int, Mapping[tuple[int, ...], dict[tuple[str, ...], _Named]]]:
    """Topic types by their number of parts, the places of their words, and these words.

    A server parses the topic of every message, so that what does not change is worked out once.
    """
    shapes: dict[int, dict[tuple[int, ...], dict[tuple[str, ...], _Named]]] = {}
    for kind in TOPIC_TYPES:
        parts = list(enumerate(kind.pattern.split("/")))
        words = [(place, part) for place, part in parts if not part.startswith("{")]
        names = tuple((place, part[1:-1]) for place, part in parts if part.startswith("{"))
        places = tuple(place for place, _ in words)
        kinds = shapes.setdefault(len(parts), {}).setdefault(places, {})
        kinds[tuple(word for _, word in words)] = (kind, names)
    return shapes


_SHAPES: Final = _shapes()


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed topic: its type and the values of its placeholders, all checked."""

    type: TopicType
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Topics:
    """Spells and reads topics below one prefix."""

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", part) for part in self.prefix.split("/")):
            raise ProtocolError("schema", f"topic prefix {shown(self.prefix)} is not plain words joined by /")

    def of(self, kind: TopicType, **values: str | int) -> str:
        """The topic of `kind` with its placeholders filled; raises ProtocolError `schema` on a bad value."""
        texts = {name: _check(name, str(value)) for name, value in values.items()}
        return f"{self.prefix}/{kind.pattern.format(**texts)}"

    def filter(self, kind: TopicType, **values: str | int) -> str:
        """The subscription filter of `kind`: placeholders that are not given become `+`."""
        texts = dict.fromkeys(_placeholders(kind), "+")
        texts |= {name: _check(name, str(value)) for name, value in values.items()}
        return f"{self.prefix}/{kind.pattern.format(**texts)}"

    def parse(self, topic: str) -> Address:
        """The address that a topic names, or ProtocolError `schema` where it is not one of ours."""
        if topic.startswith(self.prefix + "/"):
            parts = topic[len(self.prefix) + 1 :].split("/")
            for places, kinds in _SHAPES.get(len(parts), {}).items():
                found = kinds.get(tuple([parts[place] for place in places]))
                if found is not None:
                    kind, names = found
                    values = {name: parts[place] for place, name in names}
                    if all(_valid(name, value) for name, value in values.items()):
                        return Address(kind, values)
        raise ProtocolError("schema", f"topic {shown(topic)} is not a Fairlead topic")


def _placeholders(kind: TopicType) -> list[str]:
    return re.findall(r"{(\w+)}", kind.pattern)


def _check(name: str, value: str) -> str:
    if not _valid(name, value):
        if name in ("version", "role"):
            raise ProtocolError("schema", f"{name} {shown(value)} can not stand in a topic")
        check_id(value, name)
    return value


def _valid(name: str, value: str) -> bool:
    if name == "version":
        return _VERSION.fullmatch(value) is not None
    if name == "role":
        return _ROLE.fullmatch(value) is not None
    return is_id(value)
