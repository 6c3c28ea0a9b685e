"""mosquitto's access rules, derived from the topic types.

Rules:
 L1. a device writes exactly the topics that `topics.DEVICE_TOPICS` lists, under its own name;
 L2. a device reads the topics that its server writes: trust and manifests of any group, because a broker
     cannot know a device's group (only the signed assignment tells it), and of `devices/` its own name only;
 L3. the server reads and writes everything below the prefix that the topic types name;
 L4. a dashboard reads plain readings and what the server says to everybody, so that it can check manifests by hand,
     and writes nothing;
 L5. nobody is given `#`.
"""

from collections.abc import Iterable
from typing import Final

from fleet_protocol.topics import (
    AVAILABILITY,
    DELEGATED,
    DEVICE_TOPICS,
    HEALTH,
    HEARTBEAT,
    MANIFEST,
    ROOT,
    SNAPSHOT,
    STATE,
    TARGETS,
    TELEMETRY,
    TIMESTAMP,
    TOPIC_TYPES,
    Topics,
    TopicType,
)

_READINGS: Final = (AVAILABILITY, STATE, HEARTBEAT, TELEMETRY, HEALTH)
_SAID_TO_ALL: Final = (ROOT, TIMESTAMP, SNAPSHOT, TARGETS, DELEGATED, MANIFEST)
DASHBOARD_READS: Final = _READINGS + _SAID_TO_ALL
"""Not reports, commands and replies: those are between a device and its server."""
SYS_TOPICS: Final = "$SYS/broker/#"
"""The broker's own numbers; for `fairlead doctor` and monitoring, through a service's account."""
_OWN_NAME: Final = "%u"
_ANY: Final = "+"


def device_acl(topics: Topics) -> str:
    """The acl_file of the devices' listener, where the user name is the certificate's name (L1, L2)."""
    lines = [f"pattern write {_pattern(topics, kind, _OWN_NAME)}" for kind in DEVICE_TOPICS]
    lines += [f"pattern read {_pattern(topics, kind, _OWN_NAME)}" for kind in TOPIC_TYPES if kind.device_reads]
    return _file("Devices: each writes its own topics and reads what its server says.", lines)


def service_acl(topics: Topics, server: str, dashboards: Iterable[str]) -> str:
    """The acl_file of the services' listener, by user name (L3, L4)."""
    lines = [f"user {server}", f"topic read {SYS_TOPICS}"]
    lines += [f"topic readwrite {_pattern(topics, kind, _ANY)}" for kind in TOPIC_TYPES]
    for name in dashboards:
        lines += ["", f"user {name}", f"topic read {SYS_TOPICS}"]
        lines += [f"topic read {_pattern(topics, kind, _ANY)}" for kind in DASHBOARD_READS]
    return _file("Services: the server, and dashboards that only read.", lines)


def _pattern(topics: Topics, kind: TopicType, device: str) -> str:
    """The topics of one type as a filter; what is not a device's name matches any."""
    below = kind.pattern.format_map(_Wildcards(device=device))
    return f"{topics.prefix}/{below}"


class _Wildcards(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return _ANY


def _file(title: str, lines: list[str]) -> str:
    head = f"# {title}\n# Rendered by Fairlead from its topic types; change those, not this file.\n"
    return head + "\n".join(lines) + "\n"
