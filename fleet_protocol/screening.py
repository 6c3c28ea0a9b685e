"""What is asked of a TUF metadata file before the `tuf` library may see it. Pure; needs no TUF library.

1. The size is checked first, then strict JSON: two parsers can not disagree about what was signed.
2. `_type` is the one that its place asks for.
3. Every threshold is an integer of at least 1; a boolean or a string is none.
4. Root's own role lists no public key twice and can be met: it decides who may sign the next root.
5. No delegated role lists one public key under two key ids.
6. Root's other roles are judged on the newest root only (`check_roles`), because a root with a bad role must
   still lead on to the root that repairs it.

The `tuf` library checks everything else. It accepts 3 (booleans), 4 and 5, which is why they stand here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleet_protocol import strict_json
from fleet_protocol.envelope import key_set, public_value
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown

TOP_LEVEL: Final = ("root", "timestamp", "snapshot", "targets")


def screen(data: bytes, role: str, *, max_size: int) -> Mapping[str, Any]:
    """Return the `signed` member of the metadata of `role`, unverified.

    Raises ProtocolError `size`, `parse`, `type`, `root` (a bad root), `threshold` (a key that would count
    twice) or `metadata` (not metadata at all).
    """
    document = strict_json.loads(data, max_size=max_size, max_string=max_size)
    signed = document.get("signed") if isinstance(document, dict) else None
    if not isinstance(signed, dict):
        raise ProtocolError("metadata", f"{role}: no signed member")
    wanted = role if role in TOP_LEVEL else "targets"
    if signed.get("_type") != wanted:
        raise ProtocolError("type", f"_type {shown(signed.get('_type'))}, wanted {wanted}")
    if wanted == "root":
        _check_root(signed)
    elif isinstance(signed.get("delegations"), dict):
        _check_delegations(signed["delegations"])
    return signed


def check_roles(root: Mapping[str, Any]) -> None:
    """Rule 6: raise ProtocolError `threshold` where a role of the newest root lists one public key twice."""
    for name, role in root["roles"].items():
        _check_distinct(name, role["keyids"], root["keys"])


def _check_root(root: Mapping[str, Any]) -> None:
    keys, roles = root.get("keys"), root.get("roles")
    if not isinstance(keys, dict) or not isinstance(roles, dict) or not set(TOP_LEVEL) <= set(roles):
        raise ProtocolError("root", "root lacks keys or roles")
    for name, role in roles.items():
        _check_role(name, role, keys, "root")
    own = roles["root"]
    _check_distinct("root", own["keyids"], keys)
    if own["threshold"] > len(own["keyids"]):
        raise ProtocolError("root", f"threshold {own['threshold']} of {len(own['keyids'])} root keys")


def _check_delegations(delegations: Mapping[str, Any]) -> None:
    keys = delegations.get("keys", {})
    roles = delegations.get("roles", [])
    bins = delegations.get("succinct_roles")
    if not isinstance(keys, dict) or not isinstance(roles, list):
        raise ProtocolError("metadata", "malformed delegations")
    for role in [*roles, *([] if bins is None else [bins])]:
        _check_role("delegated", role, keys, "metadata")
        _check_distinct("delegated", role["keyids"], keys)


def _check_role(name: str, role: object, keys: Mapping[str, Any], code: str) -> None:
    if not isinstance(role, dict) or not isinstance(role.get("keyids"), list):
        raise ProtocolError(code, f"role {shown(name)} is malformed")
    threshold = role.get("threshold")
    if type(threshold) is not int or threshold < 1:
        raise ProtocolError(code, f"role {shown(name)}: threshold {shown(threshold)}")
    if not all(isinstance(keyid, str) and isinstance(keys.get(keyid), dict) for keyid in role["keyids"]):
        raise ProtocolError(code, f"role {shown(name)} names a key that is not listed")


def _check_distinct(name: str, keyids: Sequence[str], keys: Mapping[str, Any]) -> None:
    values = {_value(keys[keyid]) for keyid in keyids}
    if len(values) != len(keyids):
        raise ProtocolError("threshold", f"role {shown(name)} lists one public key twice")


def _value(key: Mapping[str, Any]) -> str:
    """The public key's value; a key that this device cannot read never votes, so its text is good enough."""
    try:
        (loaded,) = key_set(1, {"key": key}).keys.values()
        return public_value(loaded)
    except ProtocolError:
        return strict_json.dumps(key.get("keyval")).decode()
