"""A catalogue whose every document has been verified, as a device verifies it.

Rules, cited by number in the tests:

C1. The roots are a chain from version 1 without a gap (firmware_tools.root_chain has the rules of the chain).
C2. The newest root names this server's fleet.
C3. targets, snapshot and timestamp are each signed by the threshold of the newest root's keys for that role.
C4. timestamp binds the snapshot, and the snapshot the targets, by version, length and sha256.
C5. A release has one counter and one kind in all its targets, and no two versions of a package share a counter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from firmware_tools.metadata import entry, floors, read, read_targets
from firmware_tools.root_chain import RootDocument, verify_chain
from fleet_protocol.catalogue import KINDS, Kind, TargetInfo
from fleet_protocol.errors import ProtocolError
from fleet_protocol.manifest import Target

S = TypeVar("S", Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One package at one version, with all its targets."""

    package: str
    version: str
    counter: int
    targets: tuple[Target, ...]
    infos: tuple[TargetInfo, ...]
    """One for each of `targets`, in the same order."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of its parts, a service before what it may need."""
        found = {info.kind for info in self.infos}
        return tuple(kind for kind in KINDS if kind in found)

    @property
    def classes(self) -> tuple[str, ...]:
        """Every hardware class that some target fits."""
        return tuple(sorted({name for info in self.infos for name in info.classes}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What the offline keys have signed: the chain of roots and the targets (rules C1, C2, C3, C5)."""

    roots: tuple[RootDocument, ...]
    targets: bytes
    targets_metadata: Metadata[Targets]
    releases: tuple[Release, ...]
    floors: Mapping[str, int]

    @property
    def root(self) -> RootDocument:
        """The newest root."""
        return self.roots[-1]

    @property
    def targets_version(self) -> int:
        """The catalogue's version."""
        return self.targets_metadata.signed.version

    def release(self, package: str, version: str) -> Release | None:
        """The release of that name, if the catalogue lists it."""
        return next((r for r in self.releases if (r.package, r.version) == (package, version)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """What the online keys have signed over Contents (rules C3 and C4)."""

    snapshot: bytes
    snapshot_metadata: Metadata[Snapshot]
    timestamp: bytes
    timestamp_metadata: Metadata[Timestamp]

    @property
    def snapshot_version(self) -> int:
        """The version that names the snapshot's topic."""
        return self.snapshot_metadata.signed.version

    @property
    def timestamp_version(self) -> int:
        """Rises with every timestamp."""
        return self.timestamp_metadata.signed.version


def verify_contents(roots: Sequence[bytes], targets: bytes, *, fleet: str) -> Contents:
    """The catalogue's offline half under rules C1, C2, C3 and C5; expiry is judged elsewhere.

    Raises ProtocolError with the code of the rule that fails.
    """
    chain = verify_chain(roots)
    newest = chain[-1]
    if newest.fleet != fleet:
        advice = f"a server without a catalogue of its own is told with --fleet {newest.fleet}"
        raise ProtocolError("scope", f"the catalogue is of fleet {newest.fleet}, this server of {fleet}: {advice}")
    metadata = read_targets(targets)
    verify_role(newest, "targets", metadata)
    return Contents(
        roots=chain,
        targets=targets,
        targets_metadata=metadata,
        releases=_releases(metadata.signed),
        floors=floors(metadata.signed),
    )


def verify_current(contents: Contents, snapshot: bytes, timestamp: bytes) -> Current:
    """The catalogue's online half under rules C3 and C4; expiry is judged elsewhere."""
    timestamp_metadata = read(Timestamp, timestamp)
    verify_role(contents.root, "timestamp", timestamp_metadata)
    snapshot_metadata = read(Snapshot, snapshot)
    verify_role(contents.root, "snapshot", snapshot_metadata)
    meta = snapshot_metadata.signed.meta
    if set(meta) != {"targets.json"}:
        raise ProtocolError("metadata", "the snapshot does not bind exactly targets.json")
    _check_bound("snapshot", timestamp_metadata.signed.snapshot_meta, snapshot_metadata.signed.version, snapshot)
    _check_bound("targets", meta["targets.json"], contents.targets_version, contents.targets)
    return Current(
        snapshot=snapshot,
        snapshot_metadata=snapshot_metadata,
        timestamp=timestamp,
        timestamp_metadata=timestamp_metadata,
    )


def verify_role(root: RootDocument, role: str, metadata: Metadata[S]) -> None:
    """Return only where a threshold of the root's keys for the role signed; raises ProtocolError `signature`."""
    try:
        root.metadata.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise ProtocolError("signature", f"{role}: {error}"[:300]) from None


def _check_bound(name: str, meta: MetaFile, version: int, data: bytes) -> None:
    if meta.version != version:
        raise ProtocolError("metadata", f"{name} {version} is not the {name} {meta.version} that is bound")
    try:
        meta.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise ProtocolError("metadata", f"{name}: {error}"[:300]) from None


def _releases(targets: Targets) -> tuple[Release, ...]:
    """All releases, by package and then the newest first; rule C5."""
    rows: dict[tuple[str, str], list[tuple[Target, TargetInfo]]] = {}
    for path in sorted(targets.targets):
        info, length, sha256 = entry(targets, path)
        rows.setdefault((info.package, info.version), []).append(
            (Target(path=path, length=length, sha256=sha256), info)
        )
    releases = [_release(package, version, found) for (package, version), found in rows.items()]
    _check_counters(releases)
    return tuple(sorted(releases, key=lambda release: (release.package, -release.counter)))


def _release(package: str, version: str, rows: Sequence[tuple[Target, TargetInfo]]) -> Release:
    infos = tuple(info for _, info in rows)
    first = infos[0]
    if any(info.counter != first.counter for info in infos):
        raise ProtocolError("metadata", f"{package} {version} has targets of different counters")
    return Release(
        package=package,
        version=version,
        counter=first.counter,
        targets=tuple(target for target, _ in rows),
        infos=infos,
    )


def _check_counters(releases: Sequence[Release]) -> None:
    seen: dict[tuple[str, int], str] = {}
    for release in releases:
        other = seen.setdefault((release.package, release.counter), release.version)
        if other != release.version:
            raise ProtocolError(
                "metadata", f"{release.package}: versions {other} and {release.version} share counter {release.counter}"
            )
