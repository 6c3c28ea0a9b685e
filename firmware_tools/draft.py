"""Metadata that waits for signatures: they accumulate over machines until the thresholds are met."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer._signer import Signer
from tuf.api.metadata import Metadata, Root, Targets

from firmware_tools.files import sync_directory, write_atomically
from firmware_tools.fleet import Fleet
from firmware_tools.keys import name_of
from firmware_tools.metadata import naming, read_targets
from firmware_tools.root_chain import RootDocument, read_root, verify_first, verify_next
from fleet_protocol import limits, strict_json
from fleet_protocol.envelope import KeySet
from fleet_protocol.errors import PolicyError, ProtocolError

DraftRole = Literal["root", "targets"]


@dataclass(frozen=True, slots=True)
class Tally:
    """How far one key set's signatures have come."""

    keys_of: str
    """`root 1` for the root keys that root 1 lists, and so on."""
    threshold: int
    signed: tuple[str, ...]
    """Names of the keys that have signed."""
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether enough have signed."""
        return len(self.signed) >= self.threshold


@dataclass(frozen=True, slots=True)
class Draft:
    """One unsigned or partly signed document, with the key sets that must sign it."""

    role: DraftRole
    path: Path
    metadata: Metadata[Root] | Metadata[Targets]
    sets: tuple[tuple[str, KeySet], ...]

    @property
    def version(self) -> int:
        """The version that this draft will have."""
        return self.metadata.signed.version

    def tallies(self) -> tuple[Tally, ...]:
        """One tally for each key set: two for a root after the first, else one."""
        done = set(self.metadata.signatures)
        return tuple(_tally(label, role, done) for label, role in self.sets)

    @property
    def complete(self) -> bool:
        """Whether every threshold is met."""
        return all(tally.complete for tally in self.tallies())

    def wants(self, keyid: str) -> bool:
        """Whether a signature of this key would count."""
        return any(keyid in role.keys for _, role in self.sets)

    def check_signatures(self) -> None:
        """Raise PolicyError `catalogue` unless every signature is by a listed key and verifies.

        A signature that does not verify means that the draft was altered after it was signed.
        """
        data = self.metadata.signed_bytes
        for keyid, signature in self.metadata.signatures.items():
            keys = [role.keys[keyid] for _, role in self.sets if keyid in role.keys]
            if not keys:
                raise PolicyError("catalogue", f"{self.path} carries a signature of the unlisted key {keyid[:12]}")
            try:
                keys[0].verify_signature(signature, data)
            except (UnverifiedSignatureError, VerificationError):
                detail = f"{self.path} was altered after {name_of(keys[0])} signed it: refused; make it anew"
                raise PolicyError("catalogue", detail) from None

    def sign(self, signer: Signer) -> None:
        """Add one signature in memory."""
        self.metadata.sign(signer, append=True)

    def save(self) -> None:
        """Write the draft with the signatures that it has."""
        write_atomically(self.path, self.metadata.to_bytes())


def load(fleet: Fleet, role: DraftRole) -> Draft | None:
    """The draft of this role as it is on disk, or None where there is none.

    Raises ProtocolError where it is not valid metadata of its type.
    """
    path = fleet.draft / f"{role}.json"
    if not path.is_file():
        return None
    data = path.read_bytes()
    roots = fleet.roots()
    with naming(path):
        if role == "targets":
            return Draft(role, path, read_targets(data), (_set_of("targets", fleet.root()),))
        root = read_root(data)
    by = [roots[-1]] if roots else []
    return Draft(role, path, root.metadata, tuple(_set_of("root", each) for each in (*by, root)))


def store(fleet: Fleet, metadata: Metadata[Root] | Metadata[Targets]) -> None:
    """Replace the draft of the metadata's role; what it was signed with before is gone."""
    metadata.signatures.clear()
    write_atomically(fleet.draft / f"{metadata.signed.type}.json", metadata.to_bytes())


def publish(fleet: Fleet, draft: Draft) -> Path:
    """Move a completely signed draft to the signed metadata.

    A root is checked once more as part of the chain, as a device will check it.
    """
    data = draft.metadata.to_bytes()
    if draft.role == "root":
        _check_root(fleet, read_root(data))
    path = fleet.publish(draft.role, draft.version, data)
    draft.path.unlink()
    sync_directory(fleet.draft)
    return path


def _check_root(fleet: Fleet, root: RootDocument) -> None:
    roots = fleet.roots()
    if roots:
        verify_next(roots[-1], root)
    else:
        verify_first(root)


def _set_of(role: str, root: RootDocument) -> tuple[str, KeySet]:
    return f"{role} keys of root {root.version}", root.roles[role]


def _tally(label: str, role: KeySet, done: set[str]) -> Tally:
    signed = tuple(sorted(name_of(key) for keyid, key in role.keys.items() if keyid in done))
    missing = tuple(sorted(name_of(key) for keyid, key in role.keys.items() if keyid not in done))
    return Tally(label, role.threshold, signed, missing)


def type_of(path: Path) -> str:
    """`root` or `targets`, whichever a draft file says it is; raises ProtocolError `parse` or `type`."""
    try:
        document = strict_json.loads(path.read_bytes(), max_size=limits.TARGETS_SIZE)
    except OSError as error:
        raise PolicyError("bad-request", f"{path}: {error.strerror}") from None
    signed = document.get("signed") if isinstance(document, dict) else None
    found = signed.get("_type") if isinstance(signed, dict) else None
    if found not in ("root", "targets"):
        raise ProtocolError("type", "this is neither root nor targets metadata")
    return str(found)


def read_file(path: Path, role: DraftRole) -> Metadata[Root] | Metadata[Targets]:
    """Another holder's copy of a draft; raises ProtocolError where it is not valid."""
    data = path.read_bytes()
    with naming(path):
        return read_root(data).metadata if role == "root" else read_targets(data)
