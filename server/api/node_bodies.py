"""What the API takes and answers about devices and groups."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from server.api.body import Body
from server.domain.fleet import AttemptSeen, Group
from server.services.node_view import NodeView
from server.services.update_request import Devices, Id


class RegisterBody(Body):
    """Enrols a device. `public_key` is what `fairlead-agent init` prints: a TUF ed25519 key."""

    id: Id
    group: Id
    device_class: Id = Field(alias="class")
    public_key: dict[str, Any]


class GroupBody(Body):
    """The group that a device moves to."""

    group: Id


class PackageBody(Body):
    """The package that a rollback or retry is about; absent means all of them."""

    package: Id | None = None


class HealthChecksBody(Body):
    """Whom to ask; neither member means every device."""

    target_nodes: Devices | None = None
    group: Id | None = None


class InstalledAnswer(BaseModel):
    """One installed release."""

    package: str
    version: str
    counter: int
    deployment: str | None


class NodeAnswer(BaseModel):
    """A device as its own signed reports and the server's clock tell of it. Times are epoch seconds."""

    model_config = ConfigDict(serialize_by_alias=True)

    id: str
    group: str
    device_class: str = Field(serialization_alias="class")
    available: bool
    enrolled: float
    seen: float | None
    stage: str | None
    why: str
    sequence: int
    installed: list[InstalledAnswer]
    attack: str | None
    attacks: dict[str, int]
    telemetry: dict[str, Any] | None
    health: dict[str, Any] | None

    @classmethod
    def members(cls, view: NodeView) -> dict[str, Any]:
        """The constructor's arguments for a view."""
        device = view.device
        return {
            "id": device.id,
            "group": device.group,
            "device_class": device.device_class,
            "available": device.available,
            "enrolled": device.enrolled_s,
            "seen": device.seen_s,
            "stage": device.stage,
            "why": device.why,
            "sequence": device.sequence,
            "installed": [
                InstalledAnswer(package=i.package, version=i.version, counter=i.counter, deployment=i.deployment)
                for i in device.installed
            ],
            "attack": device.attack,
            "attacks": dict(device.attacks),
            "telemetry": view.readings.get("telemetry"),
            "health": view.readings.get("health"),
        }

    @classmethod
    def of(cls, view: NodeView) -> "NodeAnswer":
        """The answer for a view."""
        return cls(**cls.members(view))


class AttemptAnswer(BaseModel):
    """The newest that a device reported about one deployment."""

    deployment: str
    device: str
    version: str
    number: int
    stage: str
    outcome: str | None
    code: str | None
    detail: str
    at: float

    @classmethod
    def of(cls, attempt: AttemptSeen) -> "AttemptAnswer":
        """The answer for an attempt."""
        return cls(
            deployment=attempt.deployment,
            device=attempt.device,
            version=attempt.version,
            number=attempt.number,
            stage=attempt.stage,
            outcome=attempt.outcome,
            code=attempt.code,
            detail=attempt.detail,
            at=attempt.at_s,
        )


class NodeDetailAnswer(NodeAnswer):
    """A device with what it reported about its deployments, the newest first."""

    attempts: list[AttemptAnswer]

    @classmethod
    def with_attempts(cls, view: NodeView, attempts: list[AttemptAnswer]) -> "NodeDetailAnswer":
        """The answer for a view and its attempts."""
        return cls(**cls.members(view), attempts=attempts)


class RegisteredAnswer(NodeAnswer):
    """The enrolled device, and the root with which it begins to trust the fleet."""

    root: dict[str, Any]

    @classmethod
    def with_root(cls, view: NodeView, root: dict[str, Any]) -> "RegisteredAnswer":
        """The answer for a view and the trusted root."""
        return cls(**cls.members(view), root=root)


class NodesAnswer(BaseModel):
    """Devices, by id."""

    nodes: list[NodeAnswer]


class ReplyAnswer(BaseModel):
    """What a device answered to a command that it carried out."""

    id: str
    detail: str
    result: dict[str, Any]


class GroupAnswer(BaseModel):
    """One group; `sequence` is that of its newest manifest."""

    name: str
    sequence: int
    devices: int

    @classmethod
    def of(cls, group: Group, devices: int) -> "GroupAnswer":
        """The answer for a group."""
        return cls(name=group.name, sequence=group.sequence, devices=devices)


class GroupsAnswer(BaseModel):
    """Groups, by name."""

    groups: list[GroupAnswer]


class ResultsAnswer(BaseModel):
    """By device: `{verdict, checks}`, or `{code, detail}` where it did not answer."""

    results: dict[str, dict[str, Any]]


class ServicesAnswer(BaseModel):
    """A device's services, as the device tells of them."""

    services: list[dict[str, Any]]


class LogsAnswer(BaseModel):
    """The newest lines of one service's log, the oldest of them first."""

    service: str
    lines: list[str]
