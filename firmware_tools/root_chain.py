"""The chain of roots, checked as strictly as a device checks it.

Rules
1. The first root is version 1 and is signed by its own threshold of root keys.
2. Root N+1 is signed by the threshold of root N's keys and by the threshold of its own.
3. In every role a threshold is an integer from 1 to the number of distinct public keys, and no public
   key stands under two key ids. (python-tuf counts key ids, and takes `true` for 1.)
4. Every root names the same fleet, and who may sign manifests.
5. Roles share no key, so that one stolen key breaks one role.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from tuf.api.metadata import Metadata, Root, Targets

from firmware_tools.metadata import read
from fleet_protocol import limits, strict_json
from fleet_protocol.catalogue import FLEET_MEMBER
from fleet_protocol.envelope import KeySet, key_set
from fleet_protocol.errors import ProtocolError
from fleet_protocol.fleet_role import FleetRole, parse_fleet_role

TUF_ROLES: Final = ("root", "targets", "snapshot", "timestamp")
ROLES: Final = (*TUF_ROLES, "deployment")


@dataclass(frozen=True, slots=True)
class RootDocument:
    """One root whose own rules (3, 4, 5) hold; its signatures are not checked yet."""

    data: bytes
    metadata: Metadata[Root]
    fleet: str
    roles: Mapping[str, KeySet]
    """The key set of each of ROLES."""

    @property
    def version(self) -> int:
        """The root's version."""
        return self.metadata.signed.version

    def votes(self, by: "RootDocument") -> set[str]:
        """Key ids of `by`'s root role that signed this document."""
        role = by.metadata.signed.get_verification_result("root", self.metadata.signed_bytes, self.metadata.signatures)
        return set(role.signed)

    def accepts_targets(self, targets: Metadata[Targets]) -> bool:
        """Whether the threshold of this root's targets keys signed the catalogue."""
        result = self.metadata.signed.get_verification_result("targets", targets.signed_bytes, targets.signatures)
        return bool(result)


def read_root(data: bytes) -> RootDocument:
    """The root that `data` holds, once rules 3 to 5 hold.

    Raises ProtocolError `size`, `parse`, `type`, `metadata`, `root` or `threshold`. Signatures are not checked.
    """
    metadata = read(Root, data)
    signed = strict_json.loads(data, max_size=limits.ROOT_SIZE)["signed"]
    if signed.get("consistent_snapshot") is not True:
        raise ProtocolError("root", "consistent_snapshot is not true")
    roles = {name: _role(signed, name) for name in TUF_ROLES}
    fleet: FleetRole = parse_fleet_role(signed.get(FLEET_MEMBER))
    roles["deployment"] = fleet.deployment
    _check_disjoint(roles)
    return RootDocument(data, metadata, fleet.fleet, roles)


def verify_first(root: RootDocument) -> None:
    """Raise ProtocolError `root` or `threshold` unless rule 1 holds."""
    if root.version != 1:
        raise ProtocolError("root", f"the chain starts with version {root.version}")
    _check_votes(root, root)


def verify_next(previous: RootDocument, root: RootDocument) -> None:
    """Raise ProtocolError `root` or `threshold` unless rules 2 and 4 hold between two roots."""
    if root.version != previous.version + 1:
        raise ProtocolError("root", f"version {root.version} follows version {previous.version}")
    if root.fleet != previous.fleet:
        raise ProtocolError("root", f"the fleet changes from {previous.fleet} to {root.fleet}")
    _check_votes(root, previous)
    _check_votes(root, root)


def verify_chain(documents: Sequence[bytes]) -> tuple[RootDocument, ...]:
    """All roots of a chain that starts at version 1, oldest first, once rules 1 to 5 hold for each."""
    if not documents:
        raise ProtocolError("root", "there is no root")
    roots = tuple(read_root(data) for data in documents)
    verify_first(roots[0])
    for previous, root in pairwise(roots):
        verify_next(previous, root)
    return roots


def _role(signed: Mapping[str, Any], name: str) -> KeySet:
    role = signed["roles"][name]
    keyids = role["keyids"]
    if not isinstance(keyids, list) or any(keyid not in signed["keys"] for keyid in keyids):
        raise ProtocolError("root", f"role {name} names a key that root does not list")
    try:
        return key_set(role["threshold"], signed["keys"], keyids)
    except ProtocolError as error:
        raise ProtocolError(error.code, f"role {name}: {error.detail}") from None


def _check_disjoint(roles: Mapping[str, KeySet]) -> None:
    seen: dict[str, str] = {}
    for name, role in roles.items():
        for value in role.values:
            other = seen.setdefault(value, name)
            if other != name:
                raise ProtocolError("root", f"roles {other} and {name} share one key")


def _check_votes(root: RootDocument, by: RootDocument) -> None:
    votes, wanted = len(root.votes(by)), by.roles["root"].threshold
    if votes < wanted:
        raise ProtocolError(
            "threshold", f"root {root.version} has {votes} of {wanted} signatures by the keys of root {by.version}"
        )
