"""`refresh`: bring root and catalogue up to date."""

from collections.abc import Mapping
from typing import Any

from device_agent.trust.desk import Desk
from device_agent.trust.store import TrustStore
from device_agent.worker.context import WorkerContext


def run(_args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{}` -> `{"root", "timestamp", "snapshot", "targets"}`: the versions trusted now. Raises FleetError."""
    settings = context.settings
    with (
        TrustStore.opened(settings.state_dir) as store,
        Desk(store, settings, context.want, context.clock).refreshed() as catalogue,
    ):
        versions = catalogue.versions
    return {name: getattr(versions, name) for name in ("root", "timestamp", "snapshot", "targets")}
