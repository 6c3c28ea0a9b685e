"""May this document be obeyed? Asked by a device before it acts, and by the server before it publishes.

A document is opened in this order, and the first rule that it breaks names the refusal:

 1. `size`: no larger than its topic allows, checked before anything is read.
 2. `parse`, `envelope`: a DSSE envelope in strict JSON.
 3. `type`: payloadType is the one that the place asks for.
 4. `signature`, `threshold`: enough distinct public keys of the role have signed.
 5. `parse`, `type`, `schema`: the verified bytes are parsed once, strictly, and everything later uses that value.
 6. `scope`: it is for this fleet, and for this group or device.
 7. `expired`: it is not past its expiry by the trusted time (`command` for a command).
 8. Sequence: a greater one is accepted; an equal one with the same payload is known already, which is no fault;
    an equal one with another payload is `equivocation`; a lower one is `replay`. A command is `command` where
    its id was carried out before.

A verified manifest says who and when; the catalogue says what. Each deployment is matched by itself, its
fallback likewise, and one that is refused does not stop the others:

 9. `unlisted`, `schema`: every target stands in the catalogue, described in terms that this device knows.
10. `mismatch`: length, sha256, package, version and counter equal the catalogue's, and no two targets are
    for one class, unless each is a part of its own.
11. `class`: a target is for this device's class, by what the catalogue says; all of its parts are installed.
12. `floor`: the counter is not below the catalogue's floor, recalled or not.
13. `requires`: everything that the target requires is in the catalogue, by digest.

Membership, window and history come after this; they are no property of the document.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from fleet_protocol import envelope, limits
from fleet_protocol.catalogue import TargetInfo, check_parts
from fleet_protocol.envelope import KeySet
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown
from fleet_protocol.manifest import Deployment, Fallback, Manifest, Target
from fleet_protocol.messages import Assignment, Command, Report
from fleet_protocol.payload import Document
from fleet_protocol.timestamps import parse_time

D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The newest document of one kind that was obeyed, by which an older or a contradicting one is told."""

    sequence: int
    digest: str
    """SHA-256 of the payload."""
    voters: frozenset[str]
    """The public keys that signed it, as `envelope.public_value` spells them."""

    def stands(self, role: KeySet) -> bool:
        """Whether the document would still verify. A mark that does not is void: its keys were replaced."""
        return len(self.voters & role.values) >= role.threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Generic[D]):
    """A verified document. `known` is true where exactly this payload was obeyed before."""

    document: D
    mark: Mark
    known: bool = False


def open_manifest(
    data: bytes, *, role: KeySet, fleet: str, group: str, now_s: float, mark: Mark | None = None
) -> Opened[Manifest]:
    """Rules 1 to 8 for a manifest envelope that stood on `group`'s topic; raises ProtocolError."""
    opened = _open(data, Manifest, envelope.MANIFEST_TYPE, role, limits.MANIFEST_SIZE)
    manifest = opened.document
    _check_scope(("fleet", manifest.fleet, fleet), ("group", manifest.group, group))
    if parse_time(manifest.expires) <= now_s:
        raise ProtocolError("expired", f"the manifest expired at {manifest.expires}")
    return _check_sequence(opened, manifest.sequence, role, mark)


def open_assignment(
    data: bytes, *, role: KeySet, fleet: str, device: str, mark: Mark | None = None
) -> Opened[Assignment]:
    """Rules 1 to 8 for an assignment envelope on `device`'s topic; it has no expiry. Raises ProtocolError."""
    opened = _open(data, Assignment, envelope.ASSIGNMENT_TYPE, role, limits.ASSIGNMENT_SIZE)
    assignment = opened.document
    _check_scope(("fleet", assignment.fleet, fleet), ("device", assignment.device, device))
    return _check_sequence(opened, assignment.sequence, role, mark)


def open_command(
    data: bytes, *, role: KeySet, fleet: str, device: str, now_s: float, done: Collection[str] = ()
) -> Opened[Command]:
    """Rules 1 to 8 for a command envelope on `device`'s topic; `done` are ids carried out. Raises ProtocolError."""
    opened = _open(data, Command, envelope.COMMAND_TYPE, role, limits.COMMAND_SIZE)
    command = opened.document
    _check_scope(("fleet", command.fleet, fleet), ("device", command.device, device))
    if parse_time(command.expires) <= now_s:
        raise ProtocolError("command", f"command {command.id} expired at {command.expires}")
    if command.id in done:
        raise ProtocolError("command", f"command {command.id} was already carried out")
    return opened


def open_report(data: bytes, *, key: KeySet, fleet: str, device: str, after: int = 0) -> Opened[Report]:
    """Rules 1 to 6 for a report on `device`'s topic, signed by its own key; raises ProtocolError.

    `after` is the counter of the newest report known: one that is not above it is `replay`.
    """
    opened = _open(data, Report, envelope.REPORT_TYPE, key, limits.REPORT_SIZE)
    report = opened.document
    _check_scope(("fleet", report.fleet, fleet), ("device", report.device, device))
    if report.counter <= after:
        raise ProtocolError("replay", f"report {report.counter} after report {after}")
    return opened


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueTarget:
    """One artifact as the offline keys list it."""

    length: int
    sha256: str
    info: TargetInfo


class Catalogue(Protocol):
    """The verified catalogue of today."""

    def target(self, path: str) -> CatalogueTarget | None:
        """The entry of this path, or None; raises ProtocolError `schema` where its description is not understood."""

    def floor(self, package: str) -> int:
        """The counter below which nothing of the package may be installed; 0 means none."""

    def lists(self, package: str, sha256: str) -> bool:
        """Whether an artifact of the package with this digest is in the catalogue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One artifact that the manifest and the catalogue agree about."""

    target: Target
    info: TargetInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a deployment means for a device of one class."""

    deployment: Deployment
    parts: tuple[Part, ...]
    """The artifacts for the device's class, in the manifest's order; none where the deployment is refused."""
    refusal: str | None
    detail: str
    fallback: Fallback | None
    """The manifest's fallback where it is not refused."""
    fallback_parts: tuple[Part, ...]
    """Its artifacts; none where the fallback names none and can only be found in the other slot."""


def match(deployment: Deployment, catalogue: Catalogue, device_class: str) -> Match:
    """Rules 9 to 13 for one deployment. Never raises for the deployment's own faults.

    A fallback that contradicts the catalogue (`mismatch`) refuses the deployment. One that the catalogue no longer
    carries, or that is not for this device, is dropped: there is then nothing to go back to.
    """
    parts: tuple[Part, ...] = ()
    fallback_parts: tuple[Part, ...] = ()
    refusal, detail, fallback = None, "", deployment.fallback
    try:
        parts = _match_parts(_description(deployment), deployment.targets, catalogue, device_class)
    except ProtocolError as error:
        refusal, detail = error.code, error.detail
    try:
        if fallback is not None:
            fallback_parts = _match_fallback(deployment.package, fallback, catalogue, device_class)
    except ProtocolError as error:
        fallback = None
        if error.code == "mismatch" and refusal is None:
            parts, refusal, detail = (), error.code, f"fallback: {error.detail}"
    return Match(
        deployment=deployment,
        parts=parts,
        refusal=refusal,
        detail=detail,
        fallback=fallback,
        fallback_parts=fallback_parts,
    )


def check_deployment(deployment: Deployment, catalogue: Catalogue) -> None:
    """Rules 9 to 13 but 11 for a deployment and its fallback: for devices of every class. Raises ProtocolError."""
    rows = [(_description(deployment), deployment.targets)]
    if deployment.fallback is not None:
        back = deployment.fallback
        rows.append(((deployment.package, back.version, back.counter), back.targets))
    for (package, version, counter), targets in rows:
        parts = _check_targets((package, version, counter), targets, catalogue)
        _check_floor(package, counter, catalogue)
        for part in parts:
            _check_requires(part, catalogue)


def _open(data: bytes, kind: type[D], payload_type: str, role: KeySet, max_size: int) -> Opened[D]:
    signed = envelope.decode(data, max_size=max_size)
    voters = envelope.voters(signed, payload_type, role)
    from fleet_protocol import schema  # noqa: PLC0415 - half of the import cost, which no stranger's bytes may cause

    document = schema.from_payload(kind, signed.payload, max_size=max_size)
    mark = Mark(sequence=0, digest=hashlib.sha256(signed.payload).hexdigest(), voters=voters)
    return Opened(document=document, mark=mark)


def _check_scope(*rows: tuple[str, str, str]) -> None:
    for what, found, wanted in rows:
        if found != wanted:
            raise ProtocolError("scope", f"for {what} {shown(found)}, this is {shown(wanted)}")


def _check_sequence(opened: Opened[D], sequence: int, role: KeySet, before: Mark | None) -> Opened[D]:
    mark = Mark(sequence=sequence, digest=opened.mark.digest, voters=opened.mark.voters)
    if before is None or not before.stands(role) or sequence > before.sequence:
        return Opened(document=opened.document, mark=mark)
    if sequence < before.sequence:
        raise ProtocolError("replay", f"sequence {sequence} after {before.sequence}")
    if mark.digest != before.digest:
        raise ProtocolError("equivocation", f"another document carries sequence {sequence}")
    return Opened(document=opened.document, mark=before, known=True)


def _description(deployment: Deployment) -> tuple[str, str, int]:
    return deployment.package, deployment.version, deployment.counter


def _match_parts(
    description: tuple[str, str, int], targets: Sequence[Target], catalogue: Catalogue, device_class: str
) -> tuple[Part, ...]:
    parts = _narrow(_check_targets(description, targets, catalogue), device_class)
    _check_floor(description[0], description[2], catalogue)
    for part in parts:
        _check_requires(part, catalogue)
    return parts


def _match_fallback(package: str, fallback: Fallback, catalogue: Catalogue, device_class: str) -> tuple[Part, ...]:
    if not fallback.targets:
        _check_floor(package, fallback.counter, catalogue)
        return ()
    return _match_parts((package, fallback.version, fallback.counter), fallback.targets, catalogue, device_class)


def _check_targets(
    description: tuple[str, str, int], targets: Sequence[Target], catalogue: Catalogue
) -> tuple[Part, ...]:
    parts = tuple(_check_target(target, description, catalogue) for target in targets)
    check_parts(part.info for part in parts)
    return parts


def _check_floor(package: str, counter: int, catalogue: Catalogue) -> None:
    floor = catalogue.floor(package)
    if counter < floor:
        raise ProtocolError("floor", f"counter {counter} is below the floor {floor} of {package}")


def _check_requires(part: Part, catalogue: Catalogue) -> None:
    for required in part.info.requires:
        if not catalogue.lists(required.package, required.sha256):
            raise ProtocolError("requires", f"{required.package} {required.sha256} is not in the catalogue")


def _check_target(target: Target, description: tuple[str, str, int], catalogue: Catalogue) -> Part:
    listed = catalogue.target(target.path)
    if listed is None:
        raise ProtocolError("unlisted", f"{target.path} is not in the catalogue")
    info = listed.info
    if (target.length, target.sha256) != (listed.length, listed.sha256):
        raise ProtocolError("mismatch", f"{target.path}: length or sha256 differ from the catalogue's")
    if (info.package, info.version, info.counter) != description:
        raise ProtocolError("mismatch", f"{target.path} is {info.package} {info.version}, counter {info.counter}")
    return Part(target=target, info=info)


def _narrow(parts: Sequence[Part], device_class: str) -> tuple[Part, ...]:
    found = tuple(part for part in parts if device_class in part.info.classes)
    if found:
        return found
    raise ProtocolError("class", f"no target is for class {device_class}")
