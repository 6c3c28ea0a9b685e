"""What travels beside the manifest: assignments, commands, replies, reports and readings.

Signed documents are wrapped in an envelope; state and readings are flat JSON for people.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from fleet_protocol import limits
from fleet_protocol.checks import check_count, check_range, check_text
from fleet_protocol.errors import CODES, ProtocolError
from fleet_protocol.ids import check_id, check_version
from fleet_protocol.timestamps import parse_time

_STRICT: Final[Any] = {"strict": True, "extra": "forbid"}

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"

CommandName = Literal["rollback", "retry", "check-health", "list-services", "fetch-logs"]
Stage = Literal["idle", "downloading", "installing", "switching", "probation", "rolling_back"]
Outcome = Literal["committed", "rolled_back", "failed", "refused", "abandoned"]
Verdict = Literal["ok", "warning", "critical", "unknown"]
COMMANDS: Final[tuple[CommandName, ...]] = ("rollback", "retry", "check-health", "list-services", "fetch-logs")
STAGES: Final[tuple[Stage, ...]] = ("idle", "downloading", "installing", "switching", "probation", "rolling_back")
OUTCOMES: Final[tuple[Outcome, ...]] = ("committed", "rolled_back", "failed", "refused", "abandoned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Tells one device its group. Signed by the deployment role."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    TYPE: ClassVar[str] = "fairlead.assignment"

    fleet: str
    device: str
    group: str
    sequence: int
    issued: str

    def __post_init__(self) -> None:
        check_id(self.fleet, "fleet")
        check_id(self.device, "device")
        check_id(self.group, "group")
        check_range(self.sequence, 1, limits.JSON_INTEGER, "sequence")
        parse_time(self.issued)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Asks one device for one thing, once. Signed by the deployment role, never retained."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    TYPE: ClassVar[str] = "fairlead.command"

    fleet: str
    device: str
    id: str
    name: CommandName
    issued: str
    expires: str
    package: str | None
    """The package that `rollback` and `retry` are about; None means all."""
    service: str | None
    """The service whose logs `fetch-logs` reads."""
    lines: int
    """How many log lines at the most; 0 where the command has none."""

    def __post_init__(self) -> None:
        for what, value in (("fleet", self.fleet), ("device", self.device), ("command", self.id)):
            check_id(value, what)
        if self.name not in COMMANDS:
            raise ProtocolError("schema", "unknown command")
        if parse_time(self.issued) >= parse_time(self.expires):
            raise ProtocolError("schema", "issued must lie before expires")
        for what, name in (("package", self.package), ("service", self.service)):
            if name is not None:
                check_id(name, what)
        check_range(self.lines, 0, 10_000, "lines")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A device's answer to a command. `code` is None where it was carried out."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    TYPE: ClassVar[str] = "fairlead.reply"

    id: str
    code: str | None
    detail: str
    result: dict[str, Any]

    def __post_init__(self) -> None:
        check_id(self.id, "command")
        _check_code(self.code)
        check_text(self.detail, limits.TEXT, "detail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One installed release."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    package: str
    version: str
    counter: int
    deployment: str | None

    def __post_init__(self) -> None:
        check_id(self.package, "package")
        check_version(self.version)
        check_range(self.counter, 0, limits.JSON_INTEGER, "counter")
        if self.deployment is not None:
            check_id(self.deployment, "deployment")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReport:
    """How far an attempt has come, or how it ended (`outcome` is then not None)."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    deployment: str
    package: str
    version: str
    counter: int
    number: int
    """1 for the first try at this deployment."""
    stage: Stage
    outcome: Outcome | None
    code: str | None
    detail: str

    def __post_init__(self) -> None:
        check_id(self.deployment, "deployment")
        check_id(self.package, "package")
        check_version(self.version)
        check_range(self.counter, 1, limits.JSON_INTEGER, "counter")
        check_range(self.number, 1, 1_000, "number")
        if self.stage not in STAGES or (self.outcome is not None and self.outcome not in OUTCOMES):
            raise ProtocolError("schema", "unknown stage or outcome")
        _check_code(self.code)
        check_text(self.detail, limits.TEXT, "detail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A device's signed statement of what is installed, how its attempt goes, and what attacked it.

    `counter` rises by at least one with every report of this device and never falls, over reboots too.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    TYPE: ClassVar[str] = "fairlead.report"

    fleet: str
    device: str
    boot: str
    counter: int
    time: str
    group: str | None
    sequence: int
    """The highest manifest sequence that the device obeys; 0 before the first."""
    root: int
    installed: tuple[Installed, ...]
    attempt: AttemptReport | None
    attack: str | None
    """The code of the newest refused document since the last report."""
    attacks: dict[str, int]
    """How often each code was refused since the device was enrolled."""
    why: str

    def __post_init__(self) -> None:
        check_id(self.fleet, "fleet")
        check_id(self.device, "device")
        check_id(self.boot, "boot")
        check_range(self.counter, 1, limits.JSON_INTEGER, "counter")
        parse_time(self.time)
        if self.group is not None:
            check_id(self.group, "group")
        check_range(self.sequence, 0, limits.JSON_INTEGER, "sequence")
        check_range(self.root, 0, limits.JSON_INTEGER, "root")
        check_count(self.installed, 256, "installed")
        for code in (self.attack, *self.attacks):
            _check_code(code)
        for count in self.attacks.values():
            check_range(count, 0, limits.JSON_INTEGER, "attacks")
        check_text(self.why, limits.TEXT, "why")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a dashboard shows of a device; flattened by `to_flat`."""

    time: float
    stage: Stage
    why: str
    group: str | None
    sequence: int
    progress: float | None
    """Share of the current download that is done, 0 to 1; None outside a download."""
    attempt_package: str | None
    attempt_version: str | None
    attack: str | None
    installed: Mapping[str, str] = field(default_factory=dict)
    """Version by package."""

    def to_flat(self) -> dict[str, Any]:
        """Flat JSON members; each installed package stands under `version_<package>`."""
        flat: dict[str, Any] = {
            name: getattr(self, name) for name in ("time", "stage", "why", "group", "sequence", "progress")
        }
        flat |= {name: getattr(self, name) for name in ("attempt_package", "attempt_version", "attack")}
        return flat | {f"version_{package}": version for package, version in sorted(self.installed.items())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Proof of life."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    time: float
    uptime_s: float
    stage: Stage
    sequence: int
    agent: str
    """The agent's version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One health check: what was measured, against what, and the verdict."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    name: str
    value: float | None
    threshold: float | None
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All checks of one round; `verdict` is the worst of them."""

    __pydantic_config__: ClassVar[Any] = _STRICT

    time: float
    verdict: Verdict
    checks: tuple[CheckResult, ...]


def _check_code(code: str | None) -> None:
    if code is not None and code not in CODES:
        raise ProtocolError("schema", "unknown code")
