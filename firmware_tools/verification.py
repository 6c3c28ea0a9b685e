"""Checking what lies on a disk: a fleet's directory, or one artifact with its description."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tuf.api.metadata import Signed

from firmware_tools import catalogue, description, draft
from firmware_tools.catalogue_rules import check_rules
from firmware_tools.description import Description
from firmware_tools.fleet import Fleet
from firmware_tools.metadata import entry, is_expired
from firmware_tools.signing import review
from fleet_protocol.errors import FleetError, PolicyError

SOON_S = 14 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `problem` is None where it is as it should be."""

    subject: str
    text: str
    problem: str | None = None


def verify_artifact(path: Path) -> Description:
    """The description of an artifact whose bytes agree with it. Raises PolicyError `bad-request`."""
    found = description.read(path)
    catalogue.check_measured(found, path)
    return found


def verify_fleet(fleet: Fleet, *, now_s: float) -> list[Finding]:
    """Everything that is signed, drafted or stored in the directory, looked at anew.

    Raises PolicyError `setup` where there is no fleet; every other fault is a finding with a problem.
    """
    fleet.known()
    findings: list[Finding] = []
    for part in (_roots, _targets, _artifacts, _drafts):
        try:
            findings += part(fleet, now_s)
        except FleetError as error:
            findings.append(Finding(subject=part.__name__.strip("_"), text="", problem=error.detail))
    return findings


def _roots(fleet: Fleet, now_s: float) -> Iterator[Finding]:
    roots = fleet.roots()
    if not roots:
        yield Finding(subject="root", text="", problem="no root is signed yet")
        return
    root = roots[-1]
    text = f"root {root.version} of fleet {root.fleet}, chain of {len(roots)} verified"
    yield _dated("root", text, root.metadata.signed, now_s)


def _targets(fleet: Fleet, now_s: float) -> Iterator[Finding]:
    metadata = fleet.targets()
    if metadata is None:
        yield Finding(subject="catalogue", text="", problem="no catalogue is signed yet")
        return
    targets = metadata.signed
    check_rules(targets, None)
    text = f"catalogue {targets.version} with {len(targets.targets)} artifacts, signatures verified"
    if fleet.root().accepts_targets(metadata):
        yield _dated("catalogue", text, targets, now_s)
    else:
        problem = f"catalogue {targets.version} is signed by keys that the newest root replaced: sign its draft"
        yield Finding(subject="catalogue", text=text, problem=problem)


def _artifacts(fleet: Fleet, now_s: float) -> Iterator[Finding]:
    del now_s
    metadata = fleet.targets()
    for path in sorted(metadata.signed.targets) if metadata else ():
        info, length, sha256 = entry(metadata.signed, path) if metadata else (None, 0, "")
        file = fleet.artifact(sha256)
        if info is None or not file.is_file():
            yield Finding(subject=path, text="listed; the artifact is not on this machine")
            continue
        problem = None
        try:
            catalogue.check_measured(Description(path=path, length=length, sha256=sha256, custom=info), file)
        except PolicyError as error:
            problem = error.detail
        yield Finding(subject=path, text=f"{length} bytes, digest and unpacked sizes verified", problem=problem)


def _drafts(fleet: Fleet, now_s: float) -> Iterator[Finding]:
    names: tuple[draft.DraftRole, ...] = ("root", "targets")
    for name in names:
        document = draft.load(fleet, name) if name == "root" or fleet.roots() else None
        if document is None:
            continue
        review(fleet, document, now_s=now_s)
        waits = "; ".join(
            f"{len(tally.signed)} of {tally.threshold} {tally.keys_of} signed" for tally in document.tallies()
        )
        yield Finding(subject=f"{name} draft", text=f"version {document.version} waits: {waits}")


def _dated(subject: str, text: str, signed: Signed, now_s: float) -> Finding:
    until = signed.expires.strftime("%Y-%m-%d")
    if is_expired(signed, now_s):
        return Finding(subject=subject, text=text, problem=f"expired on {until}: `renew` and sign it")
    soon = signed.expires < datetime.fromtimestamp(now_s + SOON_S, UTC)
    return Finding(subject=subject, text=f"{text}, valid until {until}{' - RENEW IT SOON' if soon else ''}")
