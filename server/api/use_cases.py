"""Everything that the routes may call."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from server.ports import Clock, Store
from server.services.artifacts import Artifacts
from server.services.catalogue import Catalogue
from server.services.decommissioning import Decommissioning
from server.services.devices_asked import DevicesAsked
from server.services.nodes import Nodes
from server.services.publishing import Publishing
from server.services.release_desk import ReleaseDesk
from server.services.retrying import Retrying
from server.services.status import StatusDesk
from server.services.steering import Steering
from server.services.uploading import Uploading


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """The use cases of one server, wired in server.app."""

    store: Store
    clock: Clock
    catalogue: Catalogue
    artifacts: Artifacts
    publishing: Publishing
    steering: Steering
    retrying: Retrying
    nodes: Nodes
    decommissioning: Decommissioning
    asked: DevicesAsked
    uploading: Uploading
    release_desk: ReleaseDesk | None
    """None unless this server holds all keys."""
    registry: CollectorRegistry
    status: StatusDesk
