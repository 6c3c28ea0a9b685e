"""`assignment`: judge a spooled assignment and remember the group."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from device_agent.trust.desk import Desk, read_document
from device_agent.trust.store import TrustStore
from device_agent.worker.context import WorkerContext
from fleet_protocol import limits
from fleet_protocol.acceptance import open_assignment


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"path"}` -> `{"group", "sequence"}`, once the group is persisted. Raises FleetError."""
    data = read_document(args["path"], limits.ASSIGNMENT_SIZE)
    settings = context.settings
    with TrustStore.opened(settings.state_dir) as store:
        desk = Desk(store, settings, context.want, context.clock)
        opened = desk.proven(
            lambda role: open_assignment(
                data, role=role, fleet=settings.fleet, device=settings.device, mark=desk.floors.assignment
            )
        )
        assignment = opened.document
        if not opened.known:
            desk.save(replace(desk.floors, group=assignment.group, assignment=opened.mark))
    return {"group": assignment.group, "sequence": assignment.sequence}
