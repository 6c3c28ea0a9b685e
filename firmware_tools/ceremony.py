"""Root ceremonies: the first root, and every change of keys after it.

A ceremony makes a draft; `firmware_tools.signing.sign` collects the signatures. Where all keys are at
hand, `init` signs at once.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import Key
from tuf.api.metadata import Metadata, Role, Root, Targets

from firmware_tools import draft, keys
from firmware_tools.files import sync_directory, write_atomically
from firmware_tools.fleet import Fleet
from firmware_tools.metadata import expires_at
from firmware_tools.root_chain import ROLES, TUF_ROLES, read_root
from fleet_protocol.catalogue import FLEET_MEMBER, FLOOR_MEMBER
from fleet_protocol.errors import PolicyError
from fleet_protocol.fleet_role import format_fleet_role
from fleet_protocol.ids import is_id, shown

OFFLINE_ROLES: Final = ("root", "targets")
ONLINE_ROLES: Final = ("snapshot", "timestamp", "deployment")
KEYS_MOST: Final = 16
_PART: Final = ".init-part"
_DONE: Final = ".init-done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """How many days signed metadata is valid. Roots live long: renewing one needs a ceremony."""

    root_days: float = 365
    targets_days: float = 90

    def __post_init__(self) -> None:
        for days in (self.root_days, self.targets_days):
            if not 0 < days <= 3_660:
                raise PolicyError("bad-request", "metadata expires after more than 0 and at most 3660 days")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlan:
    """Who will hold the keys of each offline role, and how many must sign.

    `public` holds keys made on other machines, by role; the rest up to `keys` is generated here.
    """

    threshold: int = 2
    keys: int = 3
    public: Mapping[str, Sequence[Key]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, value in (("threshold", self.threshold), ("keys", self.keys)):
            if type(value) is not int or not 1 <= value <= KEYS_MOST:
                raise PolicyError("bad-request", f"{what} must be an integer from 1 to {KEYS_MOST}")
        if self.threshold > self.keys:
            raise PolicyError("bad-request", f"{self.threshold} of {self.keys} keys can never sign")
        for role, public in self.public.items():
            if role not in OFFLINE_ROLES:
                raise PolicyError("bad-request", f"public keys may be given for root and targets, not {shown(role)}")
            if len(public) > self.keys:
                raise PolicyError("bad-request", f"{len(public)} public {role} keys, but keys = {self.keys}")
        ids = [key.keyid for public in self.public.values() for key in public]
        if len(set(ids)) != len(ids):
            raise PolicyError("bad-request", "one public key is given twice: every holder needs a key of their own")


def init(
    directory: Path,
    *,
    fleet: str,
    now_s: float,
    threshold: int = 2,
    keys: int = 3,
    passphrase: str | None = None,
    public: Mapping[str, Sequence[Key]] | None = None,
    expiry: Expiry | None = None,
    classes: Iterable[str] = (),
) -> Fleet:
    """Make a fleet's keys, its first root and an empty catalogue, in a directory that holds none yet.

    Offline keys are encrypted where a passphrase is given; the server's online keys never are, for it starts
    alone. Root and catalogue are signed with the keys made here; where those are fewer than the threshold, the
    drafts wait for the holders of the `public` keys. `classes` are the device classes that releases may name; none
    means any. After a power cut it can be called again. Raises PolicyError `bad-request`, `conflict` or `keys`.
    """
    known = sorted(set(classes))
    for name in (fleet, *known):
        if not is_id(name):
            raise PolicyError("bad-request", f"{shown(name)} is not of the form [a-z0-9][a-z0-9_-]{{0,63}}")
    plan = KeyPlan(threshold=threshold, keys=keys, public=public or {})
    place = Fleet(directory)
    if _finished(place, fleet):
        return place
    expiry = expiry or Expiry()
    part = Fleet(directory / _PART)
    try:
        listed, made = _make_keys(part, plan, passphrase)
        root = _first_root(fleet, plan.threshold, listed, now_s, expiry)
        draft.store(part, root)
        _sign_here(part, "root", made["root"])
        draft.store(part, Metadata(_empty_catalogue(now_s, expiry)))
        if known:
            write_atomically(part.directory / "classes", ("\n".join(known) + "\n").encode())
        if part.roots():
            _sign_here(part, "targets", made["targets"])
        part.metadata.mkdir(exist_ok=True)
    except BaseException:
        shutil.rmtree(part.directory, ignore_errors=True)
        raise
    part.directory.rename(directory / _DONE)
    _move_in(place)
    return place


def _finished(place: Fleet, fleet: str) -> bool:
    """Tidy up after an `init` that was cut short; True where it had come so far that it only needed finishing."""
    done = Fleet(place.directory / _DONE)
    if done.directory.is_dir():
        _move_in(place)
        waiting = draft.load(place, "root")
        name = place.root().fleet if waiting is None else read_root(waiting.metadata.to_bytes()).fleet
        if name != fleet:
            raise PolicyError("conflict", f"{place.directory} is the directory of fleet {name}: choose another")
        return True
    for path in (place.offline, place.online, place.metadata, place.draft):
        if path.exists():
            raise PolicyError("conflict", f"{path} exists already: choose another directory, or rotate its keys")
    if (place.directory / _PART).is_dir():
        shutil.rmtree(place.directory / _PART)
    return False


def _move_in(place: Fleet) -> None:
    """Bring what a finished `init` made into its places, the signed metadata last; may be cut short and begun again."""
    done = place.directory / _DONE
    for path in sorted(done.iterdir(), key=lambda path: (path.name == place.metadata.name, path.name)):
        path.rename(place.directory / path.name)
        sync_directory(place.directory)
    done.rmdir()
    sync_directory(place.directory)


def _empty_catalogue(now_s: float, expiry: Expiry) -> Targets:
    return Targets(expires=expires_at(now_s, expiry.targets_days), unrecognized_fields={FLOOR_MEMBER: {}})


Listed = dict[str, list[Key]]
Made = dict[str, list[CryptoSigner]]


def _make_keys(place: Fleet, plan: KeyPlan, passphrase: str | None) -> tuple[Listed, Made]:
    """Public keys by role as root will list them, and the signers that were made here, on disk."""
    listed: Listed = {}
    made: Made = {}
    for role in OFFLINE_ROLES:
        given = list(plan.public.get(role, ()))
        made[role] = [keys.generate() for _ in range(plan.keys - len(given))]
        public = [*given, *(signer.public_key for signer in made[role])]
        names = [f"{role}-{number}" for number in range(1, len(public) + 1)]
        listed[role] = [keys.named_at_least(key, name) for key, name in zip(public, names, strict=True)]
        for signer, name in zip(made[role], names[len(given) :], strict=True):
            keys.write(signer, place.offline / f"{name}.pem", passphrase)
    for role in ONLINE_ROLES:
        signer = keys.generate()
        keys.write(signer, place.online / f"{role}.pem", None)
        listed[role] = [keys.named(signer.public_key, role)]
        made[role] = [signer]
    return listed, made


def _first_root(fleet: str, threshold: int, listed: Listed, now_s: float, expiry: Expiry) -> Metadata[Root]:
    thresholds = {role: threshold if role in OFFLINE_ROLES else 1 for role in ROLES}
    root = make_root(1, fleet, listed, thresholds, now_s=now_s, days=expiry.root_days)
    read_root(root.to_bytes())
    return root


def make_root(
    version: int,
    fleet: str,
    listed: Mapping[str, Iterable[Key]],
    thresholds: Mapping[str, int],
    *,
    now_s: float,
    days: float,
) -> Metadata[Root]:
    """An unsigned root that lists these keys for ROLES.

    Raises PolicyError `bad-request` on an impossible threshold, or where two keys have one name.
    """
    by_id = {role: {key.keyid: key for key in listed[role]} for role in ROLES}
    named = [keys.name_of(key) for members in by_id.values() for key in members.values()]
    for name in named:
        if named.count(name) > 1:
            raise PolicyError("bad-request", f"two keys are called {name}: give one's .pub file another name")
    for role, threshold in thresholds.items():
        if type(threshold) is not int or not 1 <= threshold <= len(by_id[role]):
            raise PolicyError("bad-request", f"threshold {shown(threshold)} of {len(by_id[role])} {role} keys")
    deployment = {keyid: key.to_dict() for keyid, key in sorted(by_id["deployment"].items())}
    return Metadata(
        Root(
            version=version,
            expires=expires_at(now_s, days),
            keys={keyid: key for role in TUF_ROLES for keyid, key in sorted(by_id[role].items())},
            roles={role: Role(sorted(by_id[role]), thresholds[role]) for role in TUF_ROLES},
            consistent_snapshot=True,
            unrecognized_fields={FLEET_MEMBER: format_fleet_role(fleet, thresholds["deployment"], deployment)},
        )
    )


def _sign_here(place: Fleet, role: draft.DraftRole, signers: Sequence[CryptoSigner]) -> None:
    document = draft.load(place, role)
    if document is None:
        raise PolicyError("setup", f"{place.draft} was changed while init ran")
    for signer in signers:
        document.sign(signer)
    document.save()
    if document.complete:
        draft.publish(place, document)
