"""What a verified manifest means for this device: the worker's answer, the machine's input.

Everything here has passed the acceptance order up to and including class and floor; what is left to
the machine is membership, window and history.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet_protocol.catalogue import Kind
from fleet_protocol.install import Install
from fleet_protocol.manifest import DeploymentState, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTarget:
    """One artifact to fetch and install, with the numbers that bound it. All of it signed but `urls`."""

    path: str
    length: int
    sha256: str
    kind: Kind
    format: str
    unpacked_size: int
    unpacked_files: int
    install: Install
    urls: tuple[str, ...]
    part: str = ""
    """Its name among the artifacts of the release; its content stands in the slot below a directory of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRelease:
    """One package at one version, narrowed to the artifacts of this device's class."""

    package: str
    version: str
    counter: int
    targets: tuple[PlannedTarget, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDeployment:
    """A deployment as this device may obey it; `refusal` is the code for which it may not."""

    id: str
    release: PlannedRelease
    state: DeploymentState
    share_bp: int
    salt: str
    devices: tuple[str, ...]
    fallback: PlannedRelease | None
    not_before_s: float | None
    window: Window | None
    probation_s: int
    refusal: str | None
    irreversible: bool = False
    """Whether the operator accepts that the device can not go back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The newest manifest that this device obeys."""

    group: str
    sequence: int
    digest: str
    """SHA-256 of the manifest's payload."""
    root: int
    expires_s: float
    deployments: tuple[PlannedDeployment, ...]
    floors: Mapping[str, int] = field(default_factory=dict)
    """The catalogue's `x-floor`, by package: no slot below it is switched to, recall or not."""
