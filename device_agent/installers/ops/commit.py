"""Drop what only a rollback of the attempt would have needed."""

from collections.abc import Mapping
from typing import Any

from device_agent.adapters.files import storing
from device_agent.core.codec import from_json
from device_agent.core.plan import PlannedRelease
from device_agent.installers.attempt_note import AttemptNote
from device_agent.installers.cache import empty_cache
from device_agent.installers.crash import crash_point
from device_agent.installers.registry import device_of, in_order, installer_of_kind, parts_of
from device_agent.worker.context import WorkerContext


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"release", "slot"}` -> `{}`: backups and downloads are gone, the other slot stays to go back to."""
    release = from_json(PlannedRelease, args["release"])
    device = device_of(context.settings)
    with storing(f"committing {release.package}"):
        note = AttemptNote(device.state_dir, release.package)
        for part in in_order((*note.read(), *(part.id for part in parts_of(release, args["slot"])))):
            installer_of_kind(part.kind, device).commit(part)
        crash_point("commit.before_cache")
        empty_cache(device.cache)
        crash_point("commit.after_cache")
        note.drop()
        crash_point("commit.after_note")
    return {}
