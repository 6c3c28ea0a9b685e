"""Signing a draft: look at everything, say it in words, then sign.

Rules
1. A draft with a signature that does not verify was altered, and is not signed.
2. Every digest, length and unpacked size of an artifact that is at hand is measured again; an artifact
   that is new in the draft must be at hand.
3. A draft follows what was signed before it: version plus one, the rules of the catalogue, the root chain.
4. A draft past its expiry is not signed.
5. A key signs only what its role may sign.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer._signer import Signer
from tuf.api.metadata import Root, Targets

from firmware_tools import catalogue, draft, keys
from firmware_tools.catalogue_rules import check_rules
from firmware_tools.description import Description
from firmware_tools.draft import Draft, Tally
from firmware_tools.fleet import Fleet
from firmware_tools.metadata import entry, is_expired
from firmware_tools.root_chain import read_root
from firmware_tools.rotation import targets_role_changes
from firmware_tools.statement import fingerprint, root_lines, targets_lines
from fleet_protocol.errors import PolicyError, ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A draft that may be signed, in words."""

    draft: Draft
    lines: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What became of one draft. `published` is where the metadata went once every threshold was met."""

    role: str
    version: int
    tallies: tuple[Tally, ...]
    published: Path | None


Confirm = Callable[[Reviewed], bool]


def sign(
    fleet: Fleet,
    key_files: Sequence[Path],
    *,
    now_s: float,
    passphrase: str | None = None,
    confirm: Confirm | None = None,
) -> list[Signed]:
    """`sign_with` the keys in these files, which are plain or all protected by one passphrase."""
    signers = {str(path): keys.load(path, passphrase) for path in key_files}
    return sign_with(fleet, signers, now_s=now_s, confirm=confirm)


def sign_with(
    fleet: Fleet, signers: Mapping[str, Signer], *, now_s: float, confirm: Confirm | None = None
) -> list[Signed]:
    """Sign every draft that these signers may sign, the root first; complete drafts become metadata.

    The names in `signers` are for messages. `confirm` sees each reviewed draft before it is signed; None means yes.
    Raises PolicyError `wrong-state` where a key has nothing to sign, `keys`, `catalogue`, `conflict` or
    `unknown-artifact`; ProtocolError where a draft is not valid metadata.
    """
    results = []
    used: set[str] = set()
    for role in ("root", "targets"):
        document = _load(fleet, role)
        wanted = {} if document is None else _wanted(document, signers)
        if document is None or not wanted:
            continue
        reviewed = review(fleet, document, now_s=now_s)
        if confirm is not None and not confirm(reviewed):
            raise PolicyError("wrong-state", f"the {role} draft was not signed, as you said")
        used |= set(wanted)
        results.append(_sign(fleet, document, list(wanted.values())))
    for name in set(signers) - used:
        raise PolicyError("wrong-state", f"no draft waits for a signature by {name}; `inspect` shows what waits")
    return results


def review(fleet: Fleet, document: Draft, *, now_s: float) -> Reviewed:
    """Check the draft by rules 1 to 4 and say what it is in words. Raises PolicyError or ProtocolError."""
    document.check_signatures()
    if is_expired(document.metadata.signed, now_s):
        raise PolicyError("wrong-state", f"{document.path} has expired: make it anew with `renew`")
    if isinstance(document.metadata.signed, Root):
        lines = _review_root(fleet, document)
    else:
        lines = _review_targets(fleet, document.metadata.signed)
    return Reviewed(draft=document, lines=tuple(lines), fingerprint=fingerprint(document.metadata))


def merge(fleet: Fleet, other: Path) -> list[Signed]:
    """Take the signatures from another holder's copy of a draft, where both signed the very same document.

    Raises PolicyError `conflict` where the documents differ, `catalogue` where a signature does not verify.
    """
    role: draft.DraftRole = "root" if _type_of(other) == "root" else "targets"
    document = draft.load(fleet, role)
    if document is None:
        raise PolicyError("wrong-state", f"there is no {role} draft that signatures could be added to")
    theirs = draft.read_file(other, role)
    if theirs.signed_bytes != document.metadata.signed_bytes:
        raise PolicyError("conflict", f"{other} is another document than {document.path}: start from one draft")
    document.metadata.signatures.update(theirs.signatures)
    document.check_signatures()
    return [_finish(fleet, document)]


def _review_root(fleet: Fleet, document: Draft) -> list[str]:
    root = read_root(document.metadata.to_bytes())
    roots = fleet.roots()
    before = roots[-1] if roots else None
    if root.version != (before.version if before else 0) + 1 or (before and before.fleet != root.fleet):
        raise PolicyError("conflict", f"{document.path} does not follow the signed root: make it anew")
    return root_lines(root, before)


def _review_targets(fleet: Fleet, targets: Targets) -> list[str]:
    previous = fleet.targets()
    signed = None if previous is None else previous.signed
    if targets.version != (signed.version if signed else 0) + 1:
        raise PolicyError("conflict", "the catalogue draft does not follow the signed catalogue: make it anew")
    check_rules(targets, signed)
    for path in sorted(targets.targets):
        _check_artifact(fleet, targets, signed, path)
    return targets_lines(targets, signed)


def _check_artifact(fleet: Fleet, targets: Targets, signed: Targets | None, path: str) -> None:
    info, length, sha256 = entry(targets, path)
    file = fleet.artifact(sha256)
    if file.is_file():
        catalogue.check_measured(Description(path=path, length=length, sha256=sha256, custom=info), file)
    elif signed is None or path not in signed.targets or entry(signed, path) != (info, length, sha256):
        raise PolicyError("unknown-artifact", f"{path} is new, but {file} is missing: bring it, for nobody signs blind")


def _load(fleet: Fleet, role: str) -> Draft | None:
    if role == "root":
        return draft.load(fleet, "root")
    return draft.load(fleet, "targets") if fleet.roots() and not _root_comes_first(fleet) else None


def _root_comes_first(fleet: Fleet) -> bool:
    """Whether a root draft changes the very keys that must sign the catalogue."""
    waiting = draft.load(fleet, "root")
    if waiting is None:
        return False
    return targets_role_changes(fleet.root(), read_root(waiting.metadata.to_bytes()))


def _sign(fleet: Fleet, document: Draft, signers: Sequence[Signer]) -> Signed:
    for signer in signers:
        document.sign(signer)
    return _finish(fleet, document)


def _finish(fleet: Fleet, document: Draft) -> Signed:
    document.save()
    published = draft.publish(fleet, document) if document.complete else None
    return Signed(role=document.role, version=document.version, tallies=document.tallies(), published=published)


def _wanted(document: Draft, signers: Mapping[str, Signer]) -> dict[str, Signer]:
    return {name: signer for name, signer in signers.items() if document.wants(signer.public_key.keyid)}


def _type_of(path: Path) -> str:
    try:
        return draft.type_of(path)
    except ProtocolError as error:
        raise PolicyError("bad-request", f"{path}: {error.detail}") from None
