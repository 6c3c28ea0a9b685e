"""Devices, groups and what is known of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet_protocol.messages import Installed, Outcome, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One enrolled device and the newest that it said about itself."""

    id: str
    group: str
    device_class: str
    key_id: str
    public_key: Mapping[str, Any]
    """The device's TUF-format public key; its reports verify under it."""
    enrolled_s: float
    seen_s: float | None = None
    """Server time of the newest message of any kind."""
    available: bool = False
    boot: str | None = None
    report_counter: int = 0
    sequence: int = 0
    """The manifest sequence that the device says it obeys."""
    root: int = 0
    stage: Stage | None = None
    why: str = ""
    installed: tuple[Installed, ...] = ()
    attack: str | None = None
    attacks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A named set of devices with one manifest topic."""

    name: str
    sequence: int = 0
    """Sequence of the newest published manifest; 0 before the first."""
    issued_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSeen:
    """The newest that one device reported about one deployment."""

    deployment: str
    device: str
    version: str
    number: int
    stage: Stage
    outcome: Outcome | None
    code: str | None
    detail: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what to what, and when."""

    at_s: float
    who: str
    verb: str
    subject: str
    detail: str
