"""Editing the draft of the catalogue. Nothing here signs; `catalogue_rules` says what every catalogue keeps to."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tuf.api.metadata import Metadata, TargetFile, Targets

from firmware_tools import artifact as artifacts
from firmware_tools import description, draft, driver_files
from firmware_tools.catalogue_rules import check_rules
from firmware_tools.ceremony import Expiry
from firmware_tools.description import Description
from firmware_tools.files import sync_directory
from firmware_tools.fleet import Fleet
from firmware_tools.metadata import entry, expires_at, floors, is_expired
from fleet_protocol import limits, strict_json
from fleet_protocol.catalogue import FLOOR_MEMBER, TargetInfo
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.ids import is_id, shown
from fleet_protocol.payload import to_value

T = TypeVar("T")


def add(fleet: Fleet, artifact: Path, *, now_s: float, expiry: Expiry | None = None) -> Description:
    """Put an artifact into the draft and a copy of it into `artifacts/`; adding it again changes nothing.

    Everything that can be measured is measured from the bytes; the description beside the artifact must agree.
    Raises PolicyError `bad-request` where it does not, `conflict` where a rule of the catalogue would break.
    """
    fleet.root()
    found = description.read(artifact)
    check_measured(found, artifact)
    _check_classes(fleet, found)
    document = _open(fleet, now_s, expiry or Expiry())
    targets = document.signed
    known = targets.targets.get(found.path)
    if known is not None and known.hashes.get("sha256") != found.sha256:
        detail = f"{found.path} is in the catalogue with other bytes: give the release another version"
        raise PolicyError("conflict", detail)
    targets.targets[found.path] = TargetFile(
        found.length, {"sha256": found.sha256}, found.path, {"custom": _custom(found.custom)}
    )
    check_rules(targets, _signed(fleet))
    _keep(artifact, fleet.artifact(found.sha256), found)
    draft.store(fleet, document)
    return found


def remove(fleet: Fleet, package: str, version: str, *, now_s: float, expiry: Expiry | None = None) -> list[str]:
    """Take a release out of the draft and return the paths that went; the artifacts stay on disk.

    Raises PolicyError `unknown-release`, or `conflict` where another release requires it.
    """

    def edit(targets: Targets) -> list[str]:
        gone = [path for path in targets.targets if _is(entry(targets, path)[0], package, version)]
        if not gone:
            raise PolicyError("unknown-release", f"{shown(package)} {shown(version)} is not in the catalogue")
        for path in gone:
            del targets.targets[path]
        return gone

    return _edit(fleet, edit, now_s, expiry)


def set_floor(fleet: Fleet, package: str, counter: int, *, now_s: float, expiry: Expiry | None = None) -> None:
    """Let no device install anything of the package below `counter`, recall or not. A floor never falls."""
    if not is_id(package) or type(counter) is not int or not 0 <= counter <= limits.JSON_INTEGER:
        raise PolicyError("bad-request", "a floor is a package's name and a counter that is not negative")

    def edit(targets: Targets) -> None:
        targets.unrecognized_fields[FLOOR_MEMBER] = floors(targets) | {package: counter}

    _edit(fleet, edit, now_s, expiry)


def renew(fleet: Fleet, *, now_s: float, expiry: Expiry | None = None) -> None:
    """Make a draft of the same catalogue with a new expiry.

    Raises PolicyError `conflict` where a draft waits that has not expired and that somebody has signed.
    """
    waiting = draft.load(fleet, "targets")
    signed = waiting is not None and waiting.metadata.signatures and not is_expired(waiting.metadata.signed, now_s)
    if waiting is not None and signed and not _published(waiting, fleet.targets()):
        names = ", ".join(name for tally in waiting.tallies() for name in tally.signed)
        detail = f"{waiting.path} is signed by {names} and has not expired: sign it, or delete it, first"
        raise PolicyError("conflict", detail)
    redraft(fleet, now_s=now_s, expiry=expiry)


def redraft(fleet: Fleet, *, now_s: float, expiry: Expiry | None = None) -> None:
    """As `renew`, whoever has signed a draft: for a change of the keys that must sign it."""

    def edit(targets: Targets) -> None:
        del targets

    _edit(fleet, edit, now_s, expiry)


def check_measured(found: Description, artifact: Path) -> None:
    """Raise PolicyError `bad-request` unless the bytes are what the description says, in every number."""
    try:
        measured = artifacts.measure(artifact, found.custom.format)
    except ProtocolError as error:
        raise PolicyError("bad-request", f"{artifact}: {error.detail}: pack it anew") from None
    said = (found.length, found.sha256, found.custom.unpacked_size, found.custom.unpacked_files)
    if said != (measured.length, measured.sha256, measured.unpacked_size, measured.unpacked_files):
        raise PolicyError("bad-request", f"{artifact} is not what is said of it: altered, so pack it anew")
    if found.custom.kind == "driver":
        driver_files.check_artifact(artifact, found.custom)


def _edit(fleet: Fleet, edit: Callable[[Targets], T], now_s: float, expiry: Expiry | None) -> T:
    document = _open(fleet, now_s, expiry or Expiry())
    result = edit(document.signed)
    check_rules(document.signed, _signed(fleet))
    draft.store(fleet, document)
    return result


def _open(fleet: Fleet, now_s: float, expiry: Expiry) -> Metadata[Targets]:
    """The draft, or a new one that follows the signed catalogue; in both cases with a fresh expiry."""
    fleet.root()
    signed = fleet.targets()
    waiting = draft.load(fleet, "targets")
    if waiting is not None and isinstance(waiting.metadata.signed, Targets) and not _published(waiting, signed):
        document: Metadata[Targets] = Metadata(waiting.metadata.signed)
    else:
        document = Metadata(Targets(version=0, unrecognized_fields={FLOOR_MEMBER: {}})) if signed is None else signed
        document.signed.version += 1
    document.signed.expires = expires_at(now_s, expiry.targets_days)
    return document


def _published(waiting: draft.Draft, signed: Metadata[Targets] | None) -> bool:
    """Whether the draft is left over from a signing that was cut short after publishing."""
    version = 0 if signed is None else signed.signed.version
    if waiting.version == version + 1:
        return False
    if signed is not None and waiting.metadata.signed_bytes == signed.signed_bytes:
        return True
    detail = f"{waiting.path} is of version {waiting.version}, but {version} is signed: delete the draft and edit anew"
    raise PolicyError("conflict", detail)


def _signed(fleet: Fleet) -> Targets | None:
    metadata = fleet.targets()
    return None if metadata is None else metadata.signed


def _custom(info: TargetInfo) -> object:
    """The description as plain JSON, exactly as it will be read back."""
    return strict_json.loads(strict_json.dumps(to_value(info)), max_size=limits.TARGETS_SIZE)


def _check_classes(fleet: Fleet, found: Description) -> None:
    known = fleet.classes()
    unknown = sorted(set(found.custom.classes) - known) if known else []
    if unknown:
        place = fleet.directory / "classes"
        raise PolicyError(
            "bad-request", f"class {unknown[0]} is not one of this fleet's; if it is meant, add it to {place}"
        )


def _keep(artifact: Path, place: Path, found: Description) -> None:
    if place.is_file() and artifacts.measure(place, found.custom.format).sha256 == found.sha256:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(place.name + ".part")
    try:
        shutil.copyfile(artifact, temporary)
        check_measured(found, temporary)
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(place.parent)


def _is(info: TargetInfo, package: str, version: str) -> bool:
    return (info.package, info.version) == (package, version)
