"""A whole fleet's trust documents in memory: real keys, real TUF metadata, real envelopes.

    fleet = Fleet()
    target = fleet.add_release("my-service", "1.0.0", 1, data=b"...")
    fleet.publish()
    manifest = fleet.manifest(fleet.deployment("my-service", "1.0.0"))
    fleet.documents()  # topic below the prefix -> bytes, as a broker would retain them

Everything is signed by the libraries that the product uses; nothing here is imported by it.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import (
    SPECIFICATION_VERSION,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from fleet_protocol import envelope
from fleet_protocol.catalogue import FLEET_MEMBER, FLOOR_MEMBER, Format, Kind, TargetInfo
from fleet_protocol.fleet_role import format_fleet_role
from fleet_protocol.install import HealthCheck, Install
from fleet_protocol.manifest import Deployment, DeploymentState, Fallback, Manifest, Source, Target, Window
from fleet_protocol.messages import Assignment, Command, CommandName, Report
from fleet_protocol.payload import Document, to_payload
from fleet_protocol.timestamps import format_time
from fleet_protocol.topics import (
    ASSIGNMENT,
    COMMAND,
    MANIFEST,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    Topics,
    TopicType,
)

SALT = "6f2c9e01"
SPECIFICATION = ".".join(SPECIFICATION_VERSION)


def ed25519(count: int) -> list[CryptoSigner]:
    """New key pairs."""
    return [CryptoSigner.generate_ed25519() for _ in range(count)]


@dataclass
class FleetKeys:
    """Every private key of a fleet and of its one device. Offline roles are 2 of 3, online ones 1 of 1."""

    root: list[CryptoSigner] = field(default_factory=lambda: ed25519(3))
    targets: list[CryptoSigner] = field(default_factory=lambda: ed25519(3))
    snapshot: list[CryptoSigner] = field(default_factory=lambda: ed25519(1))
    timestamp: list[CryptoSigner] = field(default_factory=lambda: ed25519(1))
    deployment: list[CryptoSigner] = field(default_factory=lambda: ed25519(1))
    device: CryptoSigner = field(default_factory=CryptoSigner.generate_ed25519)

    def of(self, role: str) -> list[CryptoSigner]:
        signers: list[CryptoSigner] = getattr(self, role)
        return signers


@dataclass
class Released:
    """One target of the catalogue, with its bytes."""

    target: Target
    info: TargetInfo
    data: bytes


class DocumentSource:
    """The device's view of the broker: a TrustSource (and `want`) over documents by topic."""

    def __init__(self, documents: Mapping[str, bytes]) -> None:
        self.documents = dict(documents)
        self.asked: list[str] = []

    def get(self, topic: str) -> bytes | None:
        self.asked.append(topic)
        return self.documents.get(topic)


class Fleet:
    """Signs and keeps all documents of one fleet with one group and one device.

    `published` holds what `publish` and `rotate` have put out so far, so that old documents stay at hand
    for replays; `documents()` is what a broker retains now.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        fleet: str = "acme",
        group: str = "line-1",
        device: str = "node-1",
        device_class: str = "x86_64",
        keys: FleetKeys | None = None,
        thresholds: Mapping[str, int] | None = None,
        now: datetime | None = None,
        prefix: str = "fleet/v1",
    ) -> None:
        self.path = path
        self.fleet, self.group, self.device, self.device_class = fleet, group, device, device_class
        self.keys = keys or FleetKeys()
        self.thresholds = {
            "root": 2,
            "targets": 2,
            "snapshot": 1,
            "timestamp": 1,
            "deployment": 1,
            **(thresholds or {}),
        }
        self.now = (now or datetime.now(UTC)).replace(microsecond=0)
        self.topics = Topics(prefix)
        self.releases: list[Released] = []
        self.floors: dict[str, int] = {}
        self.sequence = 0
        self.assignment_sequence = 0
        self.versions = {"targets": 0, "snapshot": 0, "timestamp": 0}
        self.roots: list[bytes] = []
        self.published: dict[str, bytes] = {}
        self.rotate()

    # Catalogue

    def add_release(
        self,
        package: str = "my-service",
        version: str = "1.0.0",
        counter: int = 1,
        *,
        data: bytes | None = None,
        classes: Sequence[str] | None = None,
        kind: Kind = "files",
        format: Format = "raw",  # noqa: A002 - the field's name in the catalogue
        path: str | None = None,
        install: Install | None = None,
        unpacked_size: int | None = None,
        unpacked_files: int = 1,
        **more: Any,
    ) -> Target:
        """List an artifact in the next targets metadata; `more` are further TargetInfo fields."""
        data = f"{package} {version}".encode() if data is None else data
        path = path or f"{package}/{version}/{(classes or [self.device_class])[0]}.tar.zst"
        target = Target(path=path, length=len(data), sha256=hashlib.sha256(data).hexdigest())
        info = TargetInfo(
            package=package,
            kind=kind,
            version=version,
            counter=counter,
            classes=tuple(classes or (self.device_class,)),
            format=format,
            unpacked_size=len(data) if unpacked_size is None else unpacked_size,
            unpacked_files=unpacked_files,
            install=install or Install(exec=(), stop_s=10, check=None),
            **{"precursors": (), "requires": (), "text": "", **more},
        )
        self.releases = [row for row in self.releases if row.target.path != path]
        self.releases.append(Released(target, info, data))
        return target

    def remove_release(self, package: str, version: str) -> None:
        """Drop a release from the next targets metadata."""
        self.releases = [row for row in self.releases if (row.info.package, row.info.version) != (package, version)]

    def release(self, package: str, version: str) -> list[Released]:
        """The targets of one release, in the order of their adding."""
        return [row for row in self.releases if (row.info.package, row.info.version) == (package, version)]

    def artifacts(self) -> dict[str, bytes]:
        """Every artifact's bytes by sha256."""
        return {row.target.sha256: row.data for row in self.releases}

    # TUF metadata

    def rotate(self, **replaced: list[CryptoSigner]) -> bytes:
        """Publish root N+1 with these roles' keys replaced (`deployment=`, `timestamp=`, `root=`, ...)."""
        before = self.keys
        self.keys = replace(before, **replaced) if replaced else before
        signers = list(self.keys.root)
        if "root" in replaced:
            signers = list(before.root) + signers
        data = self.sign_metadata(self.make_root(len(self.roots) + 1), signers)
        self.roots.append(data)
        self.published[self.topic(ROOT, version=len(self.roots))] = data
        return data

    def make_root(self, version: int, *, days: float = 365) -> Root:
        """An unsigned root with the present keys."""
        root = Root(version, SPECIFICATION, self._in(days), consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            root.roles[role] = Role([], self.thresholds[role])
            for signer in self.keys.of(role):
                root.add_key(signer.public_key, role)
        keys = {signer.public_key.keyid: signer.public_key.to_dict() for signer in self.keys.deployment}
        member = format_fleet_role(self.fleet, self.thresholds["deployment"], keys)
        root.unrecognized_fields[FLEET_MEMBER] = member
        return root

    def publish(self, *, days: float = 30) -> None:
        """Sign and put out the next targets, snapshot and timestamp."""
        for role in self.versions:
            self.versions[role] += 1
        targets = self.sign_metadata(self.make_targets(self.versions["targets"], days=days), self.keys.targets)
        self.put_targets(targets, days=days, version=self.versions["targets"])

    def put_targets(self, targets: bytes, *, version: int, days: float = 30) -> None:
        """Put out these targets bytes with a snapshot and a timestamp of the present versions that name them."""
        snapshot = Snapshot(self.versions["snapshot"], SPECIFICATION, self._in(days))
        snapshot.meta["targets.json"] = meta_file(version, targets)
        self.published[self.topic(TARGETS, version=version)] = targets
        self.put_snapshot(self.sign_metadata(snapshot, self.keys.snapshot), days=days)

    def put_snapshot(self, snapshot: bytes, *, days: float = 30) -> None:
        """Put out these snapshot bytes with a timestamp of the present version that names them."""
        version = self.versions["snapshot"]
        self.published[self.topic(SNAPSHOT, version=version)] = snapshot
        timestamp = self.make_timestamp(self.versions["timestamp"], snapshot, days=days)
        self.published[self.topic(TIMESTAMP)] = self.sign_metadata(timestamp, self.keys.timestamp)

    def make_targets(self, version: int, *, days: float = 30) -> Targets:
        """Unsigned targets metadata of the present releases and floors."""
        targets = Targets(version, SPECIFICATION, self._in(days))
        for row in self.releases:
            file = TargetFile(row.target.length, {"sha256": row.target.sha256}, row.target.path)
            file.unrecognized_fields["custom"] = plain(asdict(row.info))
            targets.targets[row.target.path] = file
        if self.floors:
            targets.unrecognized_fields[FLOOR_MEMBER] = dict(self.floors)
        return targets

    def make_timestamp(self, version: int, snapshot: bytes, *, days: float = 30) -> Timestamp:
        """Unsigned timestamp metadata that names these snapshot bytes."""
        meta = meta_file(self.versions["snapshot"], snapshot)
        return Timestamp(version, SPECIFICATION, self._in(days), snapshot_meta=meta)

    @staticmethod
    def sign_metadata(signed: Any, signers: Sequence[Signer]) -> bytes:
        """The metadata file of `signed`, with a signature of each signer."""
        metadata: Metadata[Any] = Metadata(signed)
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    # Signed documents

    def deployment(
        self,
        package: str = "my-service",
        version: str = "1.0.0",
        *,
        id: str | None = None,  # noqa: A002 - the field's name on the wire
        state: DeploymentState = "active",
        share_bp: int = 10_000,
        devices: Sequence[str] = (),
        fallback: str | None = None,
        urls: Sequence[str] = (),
        window: Window | None = None,
        probation_s: int = 60,
        **more: Any,
    ) -> Deployment:
        """A deployment of a release of this catalogue; `fallback` is a version, `urls` lead to every target."""
        rows = self.release(package, version)
        targets = tuple(row.target for row in rows)
        fields: dict[str, Any] = {
            "id": id or f"d-{package}-{version}".replace(".", "-"),
            "package": package,
            "version": version,
            "counter": rows[0].info.counter if rows else 1,
            "targets": targets,
            "state": state,
            "share_bp": share_bp,
            "salt": SALT,
            "devices": tuple(devices),
            "fallback": None if fallback is None else self.fallback(package, fallback),
            "not_before": None,
            "window": window,
            "probation_s": probation_s,
            "sources": tuple(Source(sha256=target.sha256, url=url) for target in targets for url in urls),
        }
        return Deployment(**{**fields, **more})

    def fallback(self, package: str, version: str) -> Fallback:
        """A fallback to a release of this catalogue."""
        rows = self.release(package, version)
        targets = tuple(row.target for row in rows)
        return Fallback(version=version, counter=rows[0].info.counter, targets=targets)

    def manifest_document(self, *deployments: Deployment, sequence: int | None = None, **more: Any) -> Manifest:
        """The manifest itself; without a `sequence` it gets the next one."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        fields: dict[str, Any] = {
            "fleet": self.fleet,
            "group": self.group,
            "sequence": self.sequence,
            "root": len(self.roots),
            "issued": self.time(0),
            "expires": self.time(7 * 24 * 3600),
            "deployments": deployments,
        }
        return Manifest(**{**fields, **more})

    def manifest(
        self,
        *deployments: Deployment,
        sequence: int | None = None,
        signers: Sequence[Signer] | None = None,
        **more: Any,
    ) -> bytes:
        """A signed manifest envelope, retained from now on; `more` replaces Manifest fields."""
        document = self.manifest_document(*deployments, sequence=sequence, **more)
        data = self.sign(document, envelope.MANIFEST_TYPE, signers)
        self.published[self.topic(MANIFEST, group=document.group)] = data
        return data

    def assignment(self, *, sequence: int | None = None, signers: Sequence[Signer] | None = None, **more: Any) -> bytes:
        """A signed assignment envelope of the device to the group, retained from now on."""
        self.assignment_sequence = self.assignment_sequence + 1 if sequence is None else sequence
        fields: dict[str, Any] = {
            "fleet": self.fleet,
            "device": self.device,
            "group": self.group,
            "sequence": self.assignment_sequence,
            "issued": self.time(0),
        }
        data = self.sign(Assignment(**{**fields, **more}), envelope.ASSIGNMENT_TYPE, signers)
        self.published[self.topic(ASSIGNMENT, device=self.device)] = data
        return data

    def command(
        self,
        name: CommandName = "check-health",
        *,
        id: str = "c-1",  # noqa: A002 - the field's name on the wire
        signers: Sequence[Signer] | None = None,
        **more: Any,
    ) -> bytes:
        """A signed command envelope to the device; never retained."""
        fields: dict[str, Any] = {
            "fleet": self.fleet,
            "device": self.device,
            "id": id,
            "name": name,
            "issued": self.time(0),
            "expires": self.time(60),
            "package": None,
            "service": None,
            "lines": 0,
        }
        return self.sign(Command(**{**fields, **more}), envelope.COMMAND_TYPE, signers)

    def report(self, *, counter: int = 1, signer: Signer | None = None, **more: Any) -> bytes:
        """A report envelope signed by the device's key."""
        fields: dict[str, Any] = {
            "fleet": self.fleet,
            "device": self.device,
            "boot": "boot-1",
            "counter": counter,
            "time": self.time(0),
            "group": self.group,
            "sequence": self.sequence,
            "root": len(self.roots),
            "installed": (),
            "attempt": None,
            "attack": None,
            "attacks": {},
            "why": "",
        }
        return self.sign(Report(**{**fields, **more}), envelope.REPORT_TYPE, [signer or self.keys.device])

    def sign(self, document: Document, payload_type: str, signers: Sequence[Signer] | None = None) -> bytes:
        """The envelope of any document, by default under the deployment keys."""
        return self.sign_payload(to_payload(document), payload_type, signers)

    def sign_payload(self, payload: bytes, payload_type: str, signers: Sequence[Signer] | None = None) -> bytes:
        """The envelope of any bytes, by default under the deployment keys."""
        return envelope.sign(payload, payload_type, self.keys.deployment if signers is None else signers).encode()

    # What the broker holds

    def topic(self, kind: TopicType, **values: str | int) -> str:
        """The full topic of a document."""
        return self.topics.of(kind, **values)

    @property
    def manifest_topic(self) -> str:
        return self.topic(MANIFEST, group=self.group)

    @property
    def assignment_topic(self) -> str:
        return self.topic(ASSIGNMENT, device=self.device)

    @property
    def command_topic(self) -> str:
        return self.topic(COMMAND, device=self.device)

    def retained(self) -> dict[str, bytes]:
        """Every retained document by its full topic."""
        return dict(self.published)

    def documents(self) -> dict[str, bytes]:
        """Every retained document by its topic below the prefix."""
        cut = len(self.topics.prefix) + 1
        return {topic[cut:]: data for topic, data in self.published.items()}

    def source(self) -> DocumentSource:
        """A TrustSource over the documents of this moment."""
        return DocumentSource(self.retained())

    @property
    def first_root(self) -> bytes:
        """The root that devices are made with."""
        return self.roots[0]

    def time(self, offset_s: float) -> str:
        """The fleet's present plus an offset, as it stands in documents."""
        return format_time(self.now.timestamp() + offset_s)

    def fork(self) -> "Fleet":
        """A copy that goes its own way with the same keys, for documents that contradict this one's."""
        twin = copy.copy(self)
        for name in ("thresholds", "releases", "floors", "versions", "roots", "published"):
            setattr(twin, name, copy.copy(getattr(self, name)))
        return twin

    def _in(self, days: float) -> datetime:
        return self.now + timedelta(days=days)


def meta_file(version: int, data: bytes) -> MetaFile:
    """What a snapshot or a timestamp says about a metadata file: version, length and digest."""
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON knows them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def http_check(port: str = "${PORT}") -> HealthCheck:
    """A health check over HTTP that asks every second."""
    return HealthCheck(kind="http", target=f"http://127.0.0.1:{port}/health", interval_s=1, timeout_s=1, failures=3)
