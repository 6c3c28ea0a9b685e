"""The catalogue: takes what the offline keys signed, adds what the online keys sign, and publishes both.

Rules, cited by number in the tests:

K1. Nothing is listed, published or stored that has not passed server.services.catalogue_state.
K2. Roots and the catalogue's version never go back: what was published is the floor, over restarts too, and over the
    loss of the store as far as server.services.witness finds it on the broker.
K3. Files on disk that do not verify are not used: what was published stays, and nothing new is signed until a good
    catalogue is uploaded.
K4. The disk is written before the transaction commits, so that what was published is never newer than the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from loguru import logger
from securesystemslib.signer._signer import Signer
from tuf.api.metadata import Metadata, Root, Targets, Timestamp

from firmware_tools.metadata import is_expired, read
from firmware_tools.online import make_snapshot, make_timestamp
from fleet_protocol.errors import FleetError, PolicyError, ProtocolError
from fleet_protocol.topics import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Topics
from server.ports import Reads, Work
from server.services.catalogue_files import CatalogueFiles
from server.services.catalogue_state import Contents, Current, Release, verify_contents, verify_current
from server.services.keyring import Keyring
from server.services.publication import Change

_EXPIRY_WARNING_S: Final = 7 * 86_400
_HALF: Final = 0.5
_SNAPSHOT: Final = "snapshot"
"""The peak of snapshot versions; a snapshot's topic carries its version, so that it has none of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long the server's own signatures are valid, and when they are renewed."""

    snapshot_days: float
    timestamp_days: float
    resign_s: float
    grace_s: float
    """How long replaced snapshot and targets topics are kept for devices in the middle of a refresh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    contents: Contents
    current: Current
    signed_s: float


class Catalogue:
    """The verified catalogue in memory, on disk and on the trust topics. Not safe for concurrent changes:
    every changing call gets a Change, of which there is one at a time."""

    def __init__(
        self, files: CatalogueFiles, keyring: Keyring, topics: Topics, *, fleet: str, lifetimes: Lifetimes
    ) -> None:
        self._files = files
        self._keyring = keyring
        self._topics = topics
        self._fleet = fleet
        self._lifetimes = lifetimes
        self._held: _Held | None = None
        self._problem: str | None = None
        self._stale: dict[str, float] = {}

    @property
    def contents(self) -> Contents | None:
        """What is verified and in force; None before the first upload, and where the disk was tampered with."""
        return self._held.contents if self._held else None

    def require(self) -> Contents:
        """What is in force, or PolicyError `setup` with what to do."""
        if self._held is None:
            raise PolicyError(
                "setup", self._problem or "no catalogue yet: upload root and targets with POST /api/catalogue"
            )
        return self._held.contents

    def release(self, package: str, version: str) -> Release:
        """The listed release, or PolicyError `unknown-release`."""
        release = self.require().release(package, version)
        if release is None:
            raise PolicyError("unknown-release", f"the catalogue lists no {package} {version}")
        return release

    def problems(self, now_s: float) -> list[str]:
        """What an operator should know: refused files, and offline signatures that end soon."""
        if self._problem is not None:
            return [self._problem]
        if self._held is None:
            return []
        signed = (self._held.contents.root.metadata.signed, self._held.contents.targets_metadata.signed)
        return [
            f"{part.type} {part.version} expires {part.expires:%Y-%m-%d}: sign a new one with the offline keys"
            for part in signed
            if part.expires.timestamp() - now_s < _EXPIRY_WARNING_S
        ]

    def load(self, change: Change, now_s: float) -> None:
        """Take the catalogue from disk if it verifies (K1 to K3), and bring the trust topics in step with it.

        What does not verify is said in the log and in `problems`, and changes nothing. Online signatures that are
        missing, expired or not ours are made anew.
        """
        self._files.recover()
        roots, targets = self._files.roots(), self._files.newest("targets")
        if not roots and targets is None:
            if change.work.document(self._topics.of(TIMESTAMP)) is not None:
                self._refuse("its files are gone from the disk")
            return
        try:
            contents = verify_contents(roots, targets or b"", fleet=self._fleet)
            self._check_floor(contents, change.work)
            current = self._current_on_disk(contents, change.work)
            if current is None or is_expired(current.timestamp_metadata.signed, now_s):
                self._put_in_force(change, contents, self._sign(contents, None, change.work, now_s), now_s)
            else:
                self._put_documents(change, contents, current)
                self._held = _Held(contents=contents, current=current, signed_s=_signed_s(current, self._lifetimes))
        except FleetError as error:
            self._refuse(str(error))
            return
        versions = contents.root.version, contents.targets_version
        logger.info("catalogue: root {}, targets {}, {} release(s)", *versions, len(contents.releases))

    def _current_on_disk(self, contents: Contents, work: Reads) -> Current | None:
        """The online half on disk, or None where it must be made anew."""
        snapshot, timestamp = self._files.newest("snapshot"), self._files.timestamp()
        if snapshot is None or timestamp is None:
            return None
        try:
            current = verify_current(contents, snapshot, timestamp)
            self._check_current_floor(current, work)
        except FleetError as error:
            logger.warning("catalogue: snapshot and timestamp on disk are not used, they are signed anew: {}", error)
            return None
        return current

    def offer(self, change: Change, roots: Sequence[bytes], targets: bytes, now_s: float) -> Contents:
        """Put a newer catalogue in force, sign it online and publish it.

        `roots` may leave out those that are known. Raises ProtocolError or PolicyError where anything does not
        verify, is older than what is in force, is expired, or cannot be signed for; then nothing has changed.
        """
        contents = verify_contents(self._chain(roots, change.work), targets, fleet=self._fleet)
        self._check_floor(contents, change.work)
        for signed in (contents.root.metadata.signed, contents.targets_metadata.signed):
            if is_expired(signed, now_s):
                raise ProtocolError("expired", f"{signed.type} {signed.version} expired {signed.expires:%Y-%m-%d}")
        self._keyring.signers(contents.root.roles["deployment"], "deployment")
        current = self._sign(contents, None, change.work, now_s)
        self._put_in_force(change, contents, current, now_s)
        self._problem = None
        return contents

    def is_due(self, now_s: float) -> bool:
        """Whether the online signatures are old enough to be renewed."""
        return self._held is not None and now_s - self._held.signed_s >= self._lifetimes.resign_s

    def resign(self, change: Change, now_s: float) -> None:
        """Renew the timestamp, and the snapshot once half of its life has passed."""
        if self._held is None:
            return
        contents, old = self._held.contents, self._held.current
        kept = old if self._snapshot_is_fresh(old, now_s) else None
        self._put_in_force(change, contents, self._sign(contents, kept, change.work, now_s), now_s)

    def clear_stale(self, change: Change, now_s: float) -> int:
        """Empty snapshot and targets topics that were replaced more than the grace ago; returns how many."""
        if self._held is None:
            return 0
        stale = self._replaced(change.work)
        self._stale = {topic: self._stale.get(topic, now_s) for topic in stale}
        gone = [topic for topic, since_s in self._stale.items() if now_s - since_s >= self._lifetimes.grace_s]
        for topic in gone:
            change.put_document(topic, None)
            del self._stale[topic]
        return len(gone)

    def _replaced(self, work: Reads) -> list[str]:
        if self._held is None:
            return []
        present = set(self._documents(self._held.contents, self._held.current))
        return [
            topic
            for topic, _ in work.documents()
            if self._topics.parse(topic).type in (SNAPSHOT, TARGETS) and topic not in present
        ]

    def _chain(self, offered: Sequence[bytes], work: Reads) -> list[bytes]:
        """The published roots with the offered ones behind them; an offered root that is known must be the same."""
        chain = self._published_roots(work)
        for data in sorted(offered, key=lambda data: read(Root, data).signed.version):
            metadata = read(Root, data)
            version = metadata.signed.version
            if version > len(chain):
                chain.append(data)
            elif read(Root, chain[version - 1]).signed_bytes != metadata.signed_bytes:
                raise PolicyError("conflict", f"root {version} is known with other content")
        return chain

    def _published_roots(self, work: Reads) -> list[bytes]:
        chain: list[bytes] = []
        while (data := work.document(self._topics.of(ROOT, version=len(chain) + 1))) is not None:
            chain.append(data)
        return chain

    def _check_floor(self, contents: Contents, work: Reads) -> None:
        """Rule K2 for the offline half."""
        published = self._published_roots(work)
        if len(published) > len(contents.roots):
            raise ProtocolError("replay", f"root {contents.root.version} is older than the published {len(published)}")
        for before, root in zip(published, contents.roots, strict=False):
            if read(Root, before).signed_bytes != root.metadata.signed_bytes:
                raise ProtocolError("equivocation", f"root {root.version} is not the one that was published")
        found = _newest_targets(work, self._topics)
        if found is None:
            return
        if found.signed.version > contents.targets_version:
            raise ProtocolError(
                "replay", f"targets {contents.targets_version} is older than the published {found.signed.version}"
            )
        same = found.signed.version == contents.targets_version
        if same and found.signed_bytes != contents.targets_metadata.signed_bytes:
            raise ProtocolError("equivocation", f"targets {found.signed.version} was published with other content")

    def _check_current_floor(self, current: Current, work: Reads) -> None:
        """Rule K2 for the online half."""
        timestamp, snapshot = self.published(work)
        if current.timestamp_version < timestamp or current.snapshot_version < snapshot:
            raise ProtocolError("replay", "timestamp or snapshot is older than what was published")

    def published(self, work: Reads) -> tuple[int, int]:
        """Versions of the published timestamp and of the snapshot that it binds, as far as is known; 0 before any."""
        topic = self._topics.of(TIMESTAMP)
        timestamp, snapshot, data = work.peak(topic), work.peak(_SNAPSHOT), work.document(topic)
        if data is None:
            return timestamp, snapshot
        signed = read(Timestamp, data).signed
        return max(timestamp, signed.version), max(snapshot, signed.snapshot_meta.version)

    def outgrow(self, work: Work, timestamp: int, snapshot: int) -> None:
        """Sign nothing with these versions, or older ones, any more: they were published once (K2)."""
        work.raise_peak(self._topics.of(TIMESTAMP), timestamp)
        work.raise_peak(_SNAPSHOT, snapshot)

    def sign_anew(self, change: Change, now_s: float) -> None:
        """Replace both online signatures, with versions above all that were published."""
        if self._held is not None:
            contents = self._held.contents
            self._put_in_force(change, contents, self._sign(contents, None, change.work, now_s), now_s)

    def _sign(self, contents: Contents, kept: Current | None, work: Reads, now_s: float) -> Current:
        """Sign a timestamp, and a snapshot where none is kept, with versions above all published ones."""
        timestamp_version, snapshot_version = self.published(work)
        if self._held is not None:
            timestamp_version = max(timestamp_version, self._held.current.timestamp_version)
            snapshot_version = max(snapshot_version, self._held.current.snapshot_version)
        life = self._lifetimes
        snapshot = kept.snapshot if kept else None
        if snapshot is None:
            signer = self._signer(contents, "snapshot")
            snapshot = make_snapshot(
                contents.targets, signer, version=snapshot_version + 1, now_s=now_s, days=life.snapshot_days
            )
        timestamp = make_timestamp(
            snapshot,
            self._signer(contents, "timestamp"),
            version=timestamp_version + 1,
            now_s=now_s,
            days=life.timestamp_days,
        )
        return verify_current(contents, snapshot, timestamp)

    def _signer(self, contents: Contents, role: str) -> Signer:
        signers = self._keyring.signers(contents.root.roles[role], role)
        if len(signers) != 1:
            raise PolicyError("keys", f"root asks for {len(signers)} {role} signatures; this server makes one")
        return signers[0]

    def _snapshot_is_fresh(self, current: Current, now_s: float) -> bool:
        left_s = current.snapshot_metadata.signed.expires.timestamp() - now_s
        return left_s > _HALF * self._lifetimes.snapshot_days * 86_400

    def _put_in_force(self, change: Change, contents: Contents, current: Current, now_s: float) -> None:
        self._files.replace(_files_of(contents, current))
        self._put_documents(change, contents, current)
        self._held = _Held(contents=contents, current=current, signed_s=now_s)

    def _put_documents(self, change: Change, contents: Contents, current: Current) -> None:
        for topic, data in self._documents(contents, current).items():
            if change.work.document(topic) != data:
                change.put_document(topic, data)

    def _documents(self, contents: Contents, current: Current) -> dict[str, bytes]:
        """Topic and bytes in the order of publication: what is referred to goes before what refers to it."""
        topics = self._topics
        documents = {topics.of(ROOT, version=root.version): root.data for root in contents.roots}
        documents[topics.of(TARGETS, version=contents.targets_version)] = contents.targets
        documents[topics.of(SNAPSHOT, version=current.snapshot_version)] = current.snapshot
        documents[topics.of(TIMESTAMP)] = current.timestamp
        return documents

    def _refuse(self, why: str) -> None:
        self._problem = f"the catalogue on disk is not used: {why}; upload a good one with POST /api/catalogue"
        logger.error("{}", self._problem)


def _files_of(contents: Contents, current: Current) -> dict[str, bytes]:
    files = {f"{root.version}.root.json": root.data for root in contents.roots}
    files[f"{contents.targets_version}.targets.json"] = contents.targets
    files[f"{current.snapshot_version}.snapshot.json"] = current.snapshot
    files["timestamp.json"] = current.timestamp
    return files


def _newest_targets(work: Reads, topics: Topics) -> Metadata[Targets] | None:
    """The published targets metadata with the highest version."""
    found = [read(Targets, data) for topic, data in work.documents() if topics.parse(topic).type is TARGETS]
    return max(found, key=lambda metadata: metadata.signed.version, default=None)


def _signed_s(current: Current, lifetimes: Lifetimes) -> float:
    """When the timestamp was signed, as far as its expiry tells."""
    return current.timestamp_metadata.signed.expires.timestamp() - lifetimes.timestamp_days * 86_400
