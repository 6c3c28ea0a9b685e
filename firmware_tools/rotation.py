"""Changing keys: the draft of the next root, which the old keys and the new must sign."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import Key

from firmware_tools import catalogue, draft, keys
from firmware_tools.ceremony import OFFLINE_ROLES, ONLINE_ROLES, Expiry, make_root
from firmware_tools.fleet import Fleet
from firmware_tools.root_chain import ROLES, RootDocument, read_root
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.ids import shown

Listed = dict[str, dict[str, Key]]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """What the next root changes. An empty change renews the root's expiry alone."""

    remove: tuple[str, ...] = ()
    """Keys of the offline roles by name (`targets-2`) or by the head of the key id, 8 digits or more."""
    generate: Mapping[str, int] = field(default_factory=dict)
    """How many keys to make here, by offline role."""
    public: Mapping[str, Sequence[Key]] = field(default_factory=dict)
    """Keys made on other machines, by offline role."""
    thresholds: Mapping[str, int] = field(default_factory=dict)
    """New thresholds, by offline role."""
    online: tuple[str, ...] = ()
    """Online roles that get a new key, made here, in place of theirs."""

    def __post_init__(self) -> None:
        for role in (*self.generate, *self.public, *self.thresholds):
            if role not in OFFLINE_ROLES:
                raise PolicyError("bad-request", f"{shown(role)} is not root or targets")
        for role in self.online:
            if role not in ONLINE_ROLES:
                raise PolicyError("bad-request", f"{shown(role)} is not one of {', '.join(ONLINE_ROLES)}")


def rotate(
    fleet: Fleet,
    change: KeyChange,
    *,
    now_s: float,
    passphrase: str | None = None,
    expiry: Expiry | None = None,
) -> tuple[Path, ...]:
    """Write the draft of the next root and return the new private key files.

    The root must then be signed by the thresholds of the old and of the new root keys. Where the targets keys
    change, the catalogue gets a draft, too, because the old signatures on it stop counting. Raises PolicyError
    `conflict` where a root draft waits already, `keys` or `bad-request`.
    """
    before = fleet.root()
    waiting = draft.load(fleet, "root")
    if waiting is not None and not _replaceable(waiting, before):
        raise PolicyError("conflict", f"a root draft waits in {fleet.draft}: sign it, or delete it, first")
    expiry = expiry or Expiry()
    listed, thresholds = _removed(before, change), _thresholds(before, change)
    made = _added(fleet, listed, change)
    by_role = {role: list(members.values()) for role, members in listed.items()}
    metadata = make_root(before.version + 1, before.fleet, by_role, thresholds, now_s=now_s, days=expiry.root_days)
    after = _checked(metadata.to_bytes())
    for path, signer in made:
        keys.write(signer, path, None if path.parent == fleet.online else passphrase)
    draft.store(fleet, after.metadata)
    if targets_role_changes(before, after):
        catalogue.redraft(fleet, now_s=now_s, expiry=expiry)
    return tuple(path for path, _ in made)


def _replaceable(waiting: draft.Draft, before: RootDocument) -> bool:
    """Whether nobody's work is lost: the draft was published already, or is a mere renewal that nobody has signed."""
    if waiting.metadata.signed_bytes == before.metadata.signed_bytes:
        return True
    roles = read_root(waiting.metadata.to_bytes()).roles
    same = all(set(roles[name].keys) == set(role.keys) for name, role in before.roles.items())
    return same and not waiting.metadata.signatures


def targets_role_changes(before: RootDocument, after: RootDocument) -> bool:
    """Whether signatures on the catalogue that counted before may not count afterwards."""
    old, new = before.roles["targets"], after.roles["targets"]
    return old.values != new.values or old.threshold != new.threshold


def _checked(data: bytes) -> RootDocument:
    try:
        return read_root(data)
    except ProtocolError as error:
        raise PolicyError("bad-request", f"the new root would break a rule: {error.detail}") from None


def _removed(before: RootDocument, change: KeyChange) -> Listed:
    listed: Listed = {role: dict(before.roles[role].keys) for role in ROLES}
    for name in change.remove:
        found = [
            (role, keyid)
            for role in OFFLINE_ROLES
            for keyid, key in listed[role].items()
            if keys.name_of(key) == name or (len(name) >= 8 and keyid.startswith(name))
        ]
        if len(found) != 1:
            raise PolicyError("keys", f"{shown(name)} names {len(found)} keys of root {before.version}, not one")
        role, keyid = found[0]
        del listed[role][keyid]
    for role in change.online:
        listed[role].clear()
    return listed


def _thresholds(before: RootDocument, change: KeyChange) -> dict[str, int]:
    return {role: change.thresholds.get(role, before.roles[role].threshold) for role in ROLES}


def _added(fleet: Fleet, listed: Listed, change: KeyChange) -> list[tuple[Path, CryptoSigner]]:
    """List the new keys; returns those made here with the files that they belong in."""
    made = []
    for role in OFFLINE_ROLES:
        number = _last_number(fleet, role)
        fresh = [keys.generate() for _ in range(change.generate.get(role, 0))]
        public = [*change.public.get(role, ()), *(signer.public_key for signer in fresh)]
        names = [f"{role}-{number + at}" for at in range(1, len(public) + 1)]
        for key, name in zip(public, names, strict=True):
            if any(key.keyid in members for members in listed.values()):
                raise PolicyError("bad-request", f"the key {keys.name_of(key)} is listed already")
            listed[role][key.keyid] = keys.named_at_least(key, name)
        places = [fleet.offline / f"{name}.pem" for name in names[len(public) - len(fresh) :]]
        made += list(zip(places, fresh, strict=True))
    for role in change.online:
        signer = keys.generate()
        name = f"{role}-{max(1, _last_number(fleet, role)) + 1}"
        listed[role][signer.public_key.keyid] = keys.named(signer.public_key, name)
        made.append((fleet.online / f"{name}.pem", signer))
    return made


def _last_number(fleet: Fleet, role: str) -> int:
    """The highest number that a key of the role ever had, so that no name is used twice."""
    names = {keys.name_of(key) for root in fleet.roots() for key in root.roles[role].keys.values()}
    names |= {path.stem for place in (fleet.offline, fleet.online) for path in place.glob(f"{role}-*.pem")}
    numbers = [name.removeprefix(f"{role}-") for name in names]
    return max((int(number) for number in numbers if number.isascii() and number.isdigit()), default=0)
