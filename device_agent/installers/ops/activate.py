"""Make the release's slot the active one."""

from collections.abc import Mapping
from typing import Any

from device_agent.adapters.files import storing
from device_agent.core.codec import from_json
from device_agent.core.plan import PlannedRelease
from device_agent.installers.attempt_note import AttemptNote
from device_agent.installers.crash import crash_point
from device_agent.installers.registry import device_of, installer_of, parts_of
from device_agent.worker.context import WorkerContext


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"release", "slot", "previous", "tree"}` -> `{}`: the slot is active and the release started.

    The slot is read back and compared with `tree` first; InstallError `altered` changes nothing.
    """
    release = from_json(PlannedRelease, args["release"])
    device = device_of(context.settings)
    slots = device.slots(release.package)
    parts = parts_of(release, args["slot"])
    installers = [(installer_of(part, device), part) for part in parts]
    with storing(f"activating {release.package}"):
        slots.verify(args["slot"], args["tree"])
        slots.settle(args["slot"])
        crash_point("activate.before_note")
        AttemptNote(device.state_dir, release.package).write(tuple(part.targets[0].kind for part in parts))
        crash_point("activate.after_note")
        for installer, part in installers:
            installer.activate(part)
    return {}
