"""An update job: the operator's request beside the rollout that carries it out."""

from dataclasses import dataclass
from typing import Literal

from fleet_protocol.manifest import Fallback, Source, Target, Window

UpdateType = Literal["service", "driver", "package", "files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The fixed part of an update; its moving part is the rollout of the same id."""

    id: str
    update_type: UpdateType
    description: str
    targets: tuple[Target, ...]
    sources: tuple[Source, ...]
    salt: str
    fallback: Fallback | None
    not_before: str | None
    window: Window | None
    created_s: float
    created_by: str
    superseded: bool = False
    """A newer deployment of the package has taken this one's place; it left the manifest."""
