"""The members of the REST API's answers that its clients rely on; the server may say more.

`client.py` checks every answer against these, so that a server of another version, or a server that is no
Fairlead server, is one clear line and not a KeyError somewhere in a table.
"""

from functools import cache
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

_OPEN: Final = ConfigDict(extra="allow")


@with_config(_OPEN)
class BrokerHealth(TypedDict):
    """The server's connection to its broker."""

    connected: bool
    url: str


@with_config(_OPEN)
class DevicesHealth(TypedDict):
    """How many devices are enrolled, and how many are online."""

    total: int
    available: int


@with_config(_OPEN)
class RolloutsHealth(TypedDict):
    """How many rollouts may still change by themselves."""

    active: int


@with_config(_OPEN)
class Health(TypedDict):
    """`GET /health`."""

    status: str
    version: str
    broker: BrokerHealth
    devices: DevicesHealth
    rollouts: RolloutsHealth
    signing: str


@with_config(_OPEN)
class InstalledRelease(TypedDict):
    """One installed release of a device."""

    package: str
    version: str
    counter: int


Node = TypedDict(
    "Node",
    {
        "id": str,
        "group": str,
        "class": str,
        "available": bool,
        "seen": float | None,
        "stage": str | None,
        "why": str,
        "sequence": int,
        "installed": list[InstalledRelease],
        "attack": str | None,
        "attacks": dict[str, int],
    },
)
"""A device. `class` is a keyword, hence the form."""
with_config(_OPEN)(Node)


@with_config(_OPEN)
class AttemptRow(TypedDict):
    """The newest that a device reported about one deployment."""

    deployment: str
    version: str
    number: int
    stage: str
    outcome: str | None
    code: str | None
    detail: str
    at: float


class NodeDetail(Node):
    """A device with its health and its attempts, the newest first: `GET /api/nodes/ID`."""

    health: dict[str, Any] | None
    attempts: list[AttemptRow]


with_config(_OPEN)(NodeDetail)


@with_config(_OPEN)
class Nodes(TypedDict):
    """`GET /api/nodes`."""

    nodes: list[Node]


@with_config(_OPEN)
class GroupRow(TypedDict):
    """One group; `sequence` is that of its newest manifest."""

    name: str
    sequence: int
    devices: int


@with_config(_OPEN)
class Groups(TypedDict):
    """`GET /api/groups`."""

    groups: list[GroupRow]


@with_config(_OPEN)
class Release(TypedDict):
    """One release of the catalogue."""

    package: str
    version: str
    counter: int
    kind: str
    classes: list[str]


@with_config(_OPEN)
class Releases(TypedDict):
    """`GET /api/releases`."""

    releases: list[Release]


@with_config(_OPEN)
class Counts(TypedDict):
    """Devices of a group by where they are with an update."""

    devices: int
    selected: int
    committed: int
    failed: int
    withdrawn: int
    in_progress: int
    silent: int
    waiting: int


@with_config(_OPEN)
class WaveRow(TypedDict):
    """One wave: a cumulative share in percent, devices by name, and how many take part once it is open."""

    share: float
    devices: list[str]
    selected: int


@with_config(_OPEN)
class FailureRow(TypedDict):
    """One device's reason."""

    device: str
    code: str
    detail: str


@with_config(_OPEN)
class Job(TypedDict):
    """An update. `wave` is the index of the newest open wave, -1 before the first."""

    job_id: str
    group: str
    package: str
    version: str
    state: str
    wave: int
    waves: list[WaveRow]
    reason: str
    created: float
    expires: float | None
    counts: Counts
    failures: list[FailureRow]


@with_config(_OPEN)
class Jobs(TypedDict):
    """`GET /api/updates`."""

    updates: list[Job]


@with_config(_OPEN)
class Services(TypedDict):
    """A device's services, as the device tells of them."""

    services: list[dict[str, Any]]


@with_config(_OPEN)
class Logs(TypedDict):
    """The newest log lines of a service, the oldest of them first."""

    service: str
    lines: list[str]


@with_config(_OPEN)
class HealthChecks(TypedDict):
    """By device: `{verdict, checks}`, or `{code, detail}` where it did not answer."""

    results: dict[str, dict[str, Any]]


@with_config(_OPEN)
class Uploaded(TypedDict):
    """The catalogue that the server serves from now on."""

    root: int
    targets: int
    releases: int


@with_config(_OPEN)
class AuditRow(TypedDict):
    """One decision of an operator, the engine or the guardian."""

    at: float
    who: str
    verb: str
    subject: str
    detail: str


@with_config(_OPEN)
class Audit(TypedDict):
    """`GET /api/audit`, the newest first."""

    entries: list[AuditRow]


def misfit(kind: Any, value: Any) -> str | None:
    """What is wrong with an answer, on one line; None where it has the form of `kind`."""
    try:
        _adapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place or 'the body'}: {first['msg']}"
    return None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
