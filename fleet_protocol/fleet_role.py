"""The `x-fleet` member of root: the fleet's name and who may sign manifests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleet_protocol.envelope import KeySet, key_set
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import is_id, shown

_MEMBERS: Final = {"fleet", "roles"}


@dataclass(frozen=True, slots=True)
class FleetRole:
    """The fleet that a root belongs to, and its deployment keys."""

    fleet: str
    deployment: KeySet


def parse_fleet_role(value: object) -> FleetRole:
    """Read `x-fleet`, or raise ProtocolError `root` or `threshold`.

    `{"fleet": id, "roles": {"deployment": {"threshold": n, "keys": {key id: TUF key}}}}`
    """
    if not isinstance(value, dict) or set(value) != _MEMBERS:
        raise ProtocolError("root", "root has no x-fleet of fleet and roles")
    fleet, roles = value["fleet"], value["roles"]
    if not is_id(fleet):
        raise ProtocolError("root", f"fleet {shown(fleet)} is not an id")
    if not isinstance(roles, dict) or set(roles) != {"deployment"}:
        raise ProtocolError("root", "x-fleet lists other roles than deployment")
    role = roles["deployment"]
    if not isinstance(role, dict) or set(role) != {"threshold", "keys"} or not isinstance(role["keys"], Mapping):
        raise ProtocolError("root", "the deployment role is not threshold and keys")
    return FleetRole(fleet, key_set(role["threshold"], role["keys"]))


def format_fleet_role(fleet: str, threshold: int, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The `x-fleet` member for TUF key dictionaries by key id; the inverse of `parse_fleet_role`."""
    return {"fleet": fleet, "roles": {"deployment": {"threshold": threshold, "keys": dict(keys)}}}
