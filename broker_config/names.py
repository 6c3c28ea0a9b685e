"""Who connects to a broker: devices by their ids, services by names that no device can have."""

import re
from typing import Final

from fleet_protocol.errors import PolicyError
from fleet_protocol.ids import check_id, is_id, shown

_PREFIX: Final = "service."
SERVER: Final = _PREFIX + "server"
"""The server's name on the broker."""
_HOST: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


def service_name(name: str) -> str:
    """`service.<name>`, the user name of a service; raises ProtocolError `schema` unless `name` is an id."""
    return _PREFIX + check_id(name, "service")


def is_service_name(name: str) -> bool:
    """Whether this is the user name of a service; never true of a device's id."""
    return name.startswith(_PREFIX) and is_id(name[len(_PREFIX) :])


def check_host(name: str) -> str:
    """Return a DNS name unchanged, or raise PolicyError `setup`."""
    if _HOST.fullmatch(name) is None:
        raise PolicyError("setup", f"{shown(name)} is not a host name")
    return name
