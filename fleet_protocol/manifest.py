"""The manifest: one group's deployments, stated by the server under one sequence number."""

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from fleet_protocol import limits
from fleet_protocol.checks import check_count, check_distinct, check_range, check_text
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import check_id, check_salt, check_sha256, check_target_path, check_version
from fleet_protocol.timestamps import parse_time

DeploymentState = Literal["active", "held", "recalled"]
_STRICT: Final[Any] = {"strict": True, "extra": "forbid"}
_LENGTH_MOST: Final = 2**45


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One artifact as the catalogue lists it. `length` is bytes, below 32 TiB."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    path: str
    length: int
    sha256: str

    def __post_init__(self) -> None:
        check_target_path(self.path)
        check_range(self.length, 0, _LENGTH_MOST, "length")
        check_sha256(self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """The release that a recalled device goes back to."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    version: str
    counter: int
    targets: tuple[Target, ...]

    def __post_init__(self) -> None:
        check_version(self.version)
        check_range(self.counter, 0, limits.JSON_INTEGER, "counter")
        check_count(self.targets, limits.TARGETS_PER_DEPLOYMENT, "targets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Daily hours, UTC minutes after midnight, in which an attempt may start; may pass midnight."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    start_min: int
    end_min: int

    def __post_init__(self) -> None:
        check_range(self.start_min, 0, 1439, "start_min")
        check_range(self.end_min, 0, 1439, "end_min")

    def holds(self, epoch_s: float) -> bool:
        """Whether the moment lies in the window; equal start and end mean the whole day."""
        minute = int(epoch_s // 60) % 1440
        if self.start_min < self.end_min:
            return self.start_min <= minute < self.end_min
        return minute >= self.start_min or minute < self.end_min


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an artifact may be downloaded; the address is not trusted, the digest is."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    sha256: str
    url: str

    def __post_init__(self) -> None:
        check_sha256(self.sha256)
        check_text(self.url, 2_048, "url")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A release meant for a group, and the share of the group that takes part now."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    id: str
    package: str
    version: str
    counter: int
    targets: tuple[Target, ...]
    state: DeploymentState
    share_bp: int
    salt: str
    devices: tuple[str, ...]
    fallback: Fallback | None
    not_before: str | None
    window: Window | None
    probation_s: int
    sources: tuple[Source, ...]
    irreversible: bool = False
    """Whether the operator accepts that a device can not go back to what it runs now."""

    def __post_init__(self) -> None:
        check_id(self.id, "deployment")
        check_id(self.package, "package")
        check_version(self.version)
        check_range(self.counter, 1, limits.JSON_INTEGER, "counter")
        check_count(self.targets, limits.TARGETS_PER_DEPLOYMENT, "targets", least=1)
        check_distinct([target.path for target in self.targets], "targets")
        if self.state not in ("active", "held", "recalled"):
            raise ProtocolError("schema", "state must be active, held or recalled")
        check_range(self.share_bp, 0, limits.SHARE_BP, "share_bp")
        check_salt(self.salt)
        check_count(self.devices, limits.DEVICES_PER_DEPLOYMENT, "devices")
        for device in self.devices:
            check_id(device, "device")
        if self.not_before is not None:
            parse_time(self.not_before)
        check_range(self.probation_s, 0, limits.PROBATION_S, "probation_s")
        check_count(self.sources, limits.SOURCES, "sources")

    def takes_part(self, device: str) -> bool:
        """Whether the device is named, or its bucket lies below the share (blueprint of `docs/protocol.md`)."""
        return device in self.devices or bucket(self.salt, device) < self.share_bp


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The payload of a manifest envelope."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    TYPE: ClassVar[str] = "fairlead.manifest"

    fleet: str
    group: str
    sequence: int
    root: int
    issued: str
    expires: str
    deployments: tuple[Deployment, ...]

    def __post_init__(self) -> None:
        check_id(self.fleet, "fleet")
        check_id(self.group, "group")
        check_range(self.sequence, 1, limits.JSON_INTEGER, "sequence")
        check_range(self.root, 1, limits.JSON_INTEGER, "root")
        if parse_time(self.issued) >= parse_time(self.expires):
            raise ProtocolError("schema", "issued must lie before expires")
        check_count(self.deployments, limits.DEPLOYMENTS, "deployments")
        check_distinct([deployment.id for deployment in self.deployments], "deployments")


def bucket(salt: str, device: str) -> int:
    """The device's place in a deployment's order: 0 to 9,999, from the first 8 hex digits of a SHA-256."""
    return int(hashlib.sha256(f"{salt}|{device}".encode()).hexdigest()[:8], 16) % limits.SHARE_BP
