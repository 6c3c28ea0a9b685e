"""What the API answers about the server itself."""

from importlib.metadata import version

from pydantic import BaseModel

from server.domain.fleet import AuditEntry
from server.services.status import Status


class Error(BaseModel):
    """The body of every error. Codes are listed in docs/errors.md."""

    code: str
    detail: str


class AuditAnswer(BaseModel):
    """One decision of an operator, the engine or the guardian."""

    at: float
    who: str
    verb: str
    subject: str
    detail: str

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditAnswer":
        """The answer for an entry."""
        return cls(at=entry.at_s, who=entry.who, verb=entry.verb, subject=entry.subject, detail=entry.detail)


class AuditsAnswer(BaseModel):
    """Audit entries, the newest first."""

    entries: list[AuditAnswer]


class BrokerHealth(BaseModel):
    """The server's connection to its broker; the address is without credentials."""

    connected: bool
    url: str


class DevicesHealth(BaseModel):
    """How many devices are enrolled, and how many say that they are online."""

    total: int
    available: int


class RolloutsHealth(BaseModel):
    """How many rollouts may still change by themselves."""

    active: int


class HealthAnswer(BaseModel):
    """Whether the server does its work; `problems` say what is wrong and what to do."""

    status: str
    version: str
    broker: BrokerHealth
    devices: DevicesHealth
    rollouts: RolloutsHealth
    signing: str
    uptime_s: float
    problems: list[str]

    @classmethod
    def of(cls, status: Status) -> "HealthAnswer":
        """The answer for a status."""
        return cls(
            status="degraded" if status.problems else "ok",
            version=version("fairlead"),
            broker=BrokerHealth(connected=status.connected, url=status.broker_url),
            devices=DevicesHealth(total=status.devices, available=status.available),
            rollouts=RolloutsHealth(active=status.active),
            signing=status.signing,
            uptime_s=round(status.uptime_s, 1),
            problems=list(status.problems),
        )
