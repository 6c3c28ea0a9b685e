"""What a file is, in words and as JSON: any artifact, description, metadata, envelope or key of Fairlead."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from firmware_tools import artifact as artifacts
from firmware_tools import description, draft, keys
from firmware_tools.driver_files import module_lines, modules_of
from firmware_tools.fleet import Fleet
from firmware_tools.metadata import read_targets
from firmware_tools.root_chain import read_root
from firmware_tools.statement import fingerprint, release_lines, root_lines, targets_lines
from fleet_protocol import envelope, limits, strict_json
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.ids import shown
from fleet_protocol.payload import to_value

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_PEM_HEAD: Final = b"-----BEGIN "
_DEB_HEAD: Final = b"!<arch>\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found. Nothing in it was verified, unless a line says so."""

    kind: str
    lines: tuple[str, ...]
    document: Mapping[str, Any] = field(default_factory=dict)
    """The same for programs."""


def inspect(path: Path) -> Inspection:
    """Say what is at `path`. Raises PolicyError `bad-request` where it is nothing of ours."""
    if path.is_dir():
        return _fleet(Fleet(path))
    try:
        with path.open("rb") as file:
            head = file.read(limits.TARGETS_SIZE + 1)
    except OSError as error:
        raise PolicyError("bad-request", f"{path}: {error.strerror}") from None
    if head.startswith(_ZSTD_MAGIC):
        return _archive(path)
    if head.startswith(_PEM_HEAD):
        return _private_key(path)
    if head.startswith(_DEB_HEAD):
        raise PolicyError("bad-request", f"{path} is a Debian package: `pack` makes a release of it")
    if not head.lstrip().startswith(b"{"):
        raise _nothing_of_ours(path)
    return _json(path, head)


def _nothing_of_ours(path: Path) -> PolicyError:
    detail = f"{path} is no artifact, description, metadata, envelope or key of Fairlead"
    return PolicyError("bad-request", detail)


def _json(path: Path, data: bytes) -> Inspection:
    try:
        document = strict_json.loads(data, max_size=limits.TARGETS_SIZE, max_string=limits.MANIFEST_SIZE)
        if not isinstance(document, dict):
            raise ProtocolError("schema", "it is not an object")
        if "payloadType" in document:
            return _envelope(data)
        if "signed" in document:
            return _metadata(document, data)
        if "custom" in document:
            return _description(path)
        if "keyid" in document:
            return _public_key(path)
    except ProtocolError as error:
        raise PolicyError("bad-request", f"{path}: {error.detail}") from None
    raise _nothing_of_ours(path)


def _archive(path: Path) -> Inspection:
    try:
        found = artifacts.measure(path, "tar.zst")
        members = [asdict(member) for member in artifacts.members(path)]
    except ProtocolError as error:
        raise PolicyError("bad-request", f"{path}: {error.detail}") from None
    lines = [f"tar.zst artifact, {found.length} bytes, sha256 {found.sha256}"]
    lines.append(f"unpacks to {found.unpacked_size} bytes in {found.unpacked_files} members:")
    if any(member["name"].endswith(".ko") for member in members):
        lines[1:1] = _modules(path)
    for member in members:
        mark = "d" if member["directory"] else ("x" if member["executable"] else "-")
        lines.append(f"  {mark} {member['size']:>12} {shown(member['name'])[1:-1]}")
    return Inspection(kind="artifact", lines=tuple(lines), document=to_value(found) | {"members": members})


def _modules(path: Path) -> list[str]:
    try:
        return ["kernel modules:", *module_lines(modules_of(path))]
    except PolicyError as error:
        return [f"no driver: {error.detail}"]


def _description(path: Path) -> Inspection:
    artifact = path.with_name(path.name.removesuffix(description.SUFFIX))
    found = description.read(artifact)
    lines = [f"description of the artifact {found.path}; its numbers are not verified here"]
    lines += release_lines(found.custom, found.length, found.sha256)
    return Inspection(kind="description", lines=tuple(lines), document=to_value(found))


def _envelope(data: bytes) -> Inspection:
    found = envelope.decode(data, max_size=limits.MANIFEST_SIZE)
    lines = [f"DSSE envelope of {shown(found.payload_type)}; the signatures are not verified here"]
    lines += [f"signed by key {shown(keyid)}" for keyid, _ in found.signatures]
    try:
        payload: Any = strict_json.loads(found.payload, max_size=limits.MANIFEST_SIZE)
        lines += json.dumps(payload, indent=2, sort_keys=True).splitlines()
    except ProtocolError as error:
        payload = base64.b64encode(found.payload).decode("ascii")
        lines.append(f"the payload is not strict JSON: {error.detail}")
    document = {
        "payloadType": found.payload_type,
        "keyids": [keyid for keyid, _ in found.signatures],
        "payload": payload,
    }
    return Inspection(kind="envelope", lines=tuple(lines), document=document)


def _metadata(document: Mapping[str, Any], data: bytes) -> Inspection:
    kind = document["signed"].get("_type") if isinstance(document["signed"], dict) else None
    signatures = document.get("signatures")
    count = len(signatures) if isinstance(signatures, list) else 0
    lines = [f"TUF {shown(kind)} metadata, {count} signatures, not verified here"]
    if kind == "root":
        root = read_root(data)
        lines += [*root_lines(root, None), f"fingerprint {fingerprint(root.metadata)}"]
    elif kind == "targets":
        targets = read_targets(data)
        lines += [*targets_lines(targets.signed, None), f"fingerprint {fingerprint(targets)}"]
    else:
        lines += json.dumps(document["signed"], indent=2, sort_keys=True).splitlines()
    return Inspection(kind="metadata", lines=tuple(lines), document=document)


def _private_key(path: Path) -> Inspection:
    if keys.needs_passphrase(path):
        return Inspection(kind="private-key", lines=("private key, encrypted with a passphrase",), document={})
    key = keys.load(path).public_key
    line = f"private ed25519 key, NOT encrypted; its public half has key id {key.keyid}"
    return Inspection(kind="private-key", lines=(line,), document={"keyid": key.keyid, "key": key.to_dict()})


def _public_key(path: Path) -> Inspection:
    key = keys.read_public(path)
    lines = (f"public ed25519 key {key.keyval['public']}", f"key id {key.keyid}")
    return Inspection(kind="public-key", lines=lines, document={"keyid": key.keyid, "key": key.to_dict()})


def _fleet(fleet: Fleet) -> Inspection:
    roots = fleet.roots()
    if not roots and not fleet.draft.is_dir():
        raise PolicyError("bad-request", f"{fleet.directory} is not a fleet directory")
    lines = root_lines(roots[-1], None) if roots else ["no root is signed yet"]
    targets = fleet.targets() if roots else None
    lines += targets_lines(targets.signed, None) if targets else ["no catalogue is signed yet"]
    waiting = []
    names: tuple[draft.DraftRole, ...] = ("root", "targets")
    for name in names:
        document = draft.load(fleet, name) if name == "root" or roots else None
        if document is not None:
            waiting.append({"role": name, "version": document.version, "tallies": _tallies(document)})
            lines.append(f"DRAFT of {name} {document.version}, fingerprint {fingerprint(document.metadata)}")
            lines += [f"  {line}" for line in tally_lines(document)]
    summary = {
        "root": roots[-1].version if roots else None,
        "targets": targets.signed.version if targets else None,
        "drafts": waiting,
    }
    return Inspection(kind="fleet", lines=tuple(lines), document=summary)


def tally_lines(document: draft.Draft) -> list[str]:
    """Who signed a draft and who may still."""
    lines = []
    for tally in document.tallies():
        signed = ", ".join(tally.signed) or "nobody yet"
        rest = "" if tally.complete else f"; may still sign: {', '.join(tally.missing)}"
        lines.append(f"{tally.keys_of}: {len(tally.signed)} of {tally.threshold} signed ({signed}){rest}")
    return lines


def _tallies(document: draft.Draft) -> list[dict[str, Any]]:
    return [asdict(tally) for tally in document.tallies()]
