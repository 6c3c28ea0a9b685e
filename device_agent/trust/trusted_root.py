"""What the device reads from its root beside what the `tuf` library reads."""

from dataclasses import dataclass

from fleet_protocol import limits
from fleet_protocol.catalogue import FLEET_MEMBER
from fleet_protocol.errors import ProtocolError
from fleet_protocol.fleet_role import FleetRole, parse_fleet_role
from fleet_protocol.screening import check_roles, screen
from fleet_protocol.timestamps import parse_time


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedRoot:
    """A root that has passed the root chain."""

    version: int
    expires_s: float
    role: FleetRole


def read_root(data: bytes, fleet: str) -> TrustedRoot:
    """Judge the newest root of a chain, whose signatures the caller has checked.

    Raises ProtocolError `root` or `threshold` where it may not be the newest (fleet_protocol.screening, rules 3 to
    6, and the deployment role likewise), `scope` where it is another fleet's.
    """
    signed = screen(data, "root", max_size=limits.ROOT_SIZE)
    check_roles(signed)
    role = parse_fleet_role(signed.get(FLEET_MEMBER))
    if role.fleet != fleet:
        raise ProtocolError("scope", f"the root is of fleet {role.fleet}, this device is of {fleet}")
    version, expires = signed.get("version"), signed.get("expires")
    if type(version) is not int or version < 1 or not isinstance(expires, str):
        raise ProtocolError("root", "version or expires is malformed")
    return TrustedRoot(version=version, expires_s=parse_time(expires), role=role)
