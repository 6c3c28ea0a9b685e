"""`manifest`: judge a spooled manifest by the acceptance order, up to and including class and floor.

1. The sequence is persisted before the catalogue is refreshed: a manifest that was once believed is never followed
   by an older one, whatever happens next.
2. A refresh that fails for the network's sake leaves the manifest half accepted. The same manifest is then known,
   which is no fault, and is taken to its end when it is offered again.
"""

from collections.abc import Mapping
from typing import Any

from device_agent.core.codec import to_json
from device_agent.trust.desk import Desk, read_document
from device_agent.trust.store import TrustStore
from device_agent.worker.context import WorkerContext
from fleet_protocol import limits
from fleet_protocol.acceptance import Opened, open_manifest
from fleet_protocol.envelope import KeySet
from fleet_protocol.errors import ProtocolError, TransportError
from fleet_protocol.ids import check_id
from fleet_protocol.manifest import Manifest
from fleet_protocol.timestamps import parse_time


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"path", "group"}` -> the Plan as JSON, its sequence persisted. Raises FleetError."""
    data = read_document(args["path"], limits.MANIFEST_SIZE)
    group = check_id(args["group"], "group")
    with TrustStore.opened(context.settings.state_dir) as store:
        desk = Desk(store, context.settings, context.want, context.clock)
        opened = desk.proven(lambda role: _open(desk, data, group, role))
        if not opened.known:
            desk.save(desk.floors.with_manifest(group, opened.mark))
        return _finish(desk, opened)


def _open(desk: Desk, data: bytes, group: str, role: KeySet) -> Opened[Manifest]:
    floors, fleet = desk.floors, desk.settings.fleet
    if floors.assignment is not None and floors.group != group:
        raise ProtocolError("scope", f"this device is assigned to {floors.group}, not to {group}")
    return open_manifest(
        data,
        role=role,
        fleet=fleet,
        group=group,
        now_s=desk.now_s,
        mark=floors.manifests.get(group),
    )


def _finish(desk: Desk, opened: Opened[Manifest]) -> dict[str, Any]:
    from device_agent.trust.planning import plan  # noqa: PLC0415 - not needed for what is refused

    manifest = opened.document
    issued_s = parse_time(manifest.issued)
    with desk.refreshed(issued_s) as catalogue:
        versions = catalogue.versions
        if versions.root < manifest.root:
            raise TransportError(
                "absent", f"the manifest was made under root {manifest.root}, newest is {versions.root}"
            )
        planned = plan(opened, catalogue, desk.settings.device_class, root=versions.root, floors=catalogue.floors)
    desk.save(desk.raised(desk.floors, issued_s, opened.mark.voters, versions.expires_s))
    answer: dict[str, Any] = to_json(planned)
    return answer
