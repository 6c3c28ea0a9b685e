"""Ask the release on probation once whether it is well."""

from collections.abc import Mapping
from typing import Any

from device_agent.adapters.files import storing
from device_agent.core.codec import from_json
from device_agent.core.plan import PlannedRelease
from device_agent.installers.registry import device_of, installer_of, parts_of
from device_agent.worker.context import WorkerContext


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"release", "slot"}` -> `{"code": null | "unhealthy" | "crashed", "detail"}`: the first part that is not well.

    Restarts are counted since the release was activated, on the disk, so nothing else needs to be said of when.
    """
    release = from_json(PlannedRelease, args["release"])
    device = device_of(context.settings)
    with storing(f"checking {release.package}"):
        if device.slots(release.package).active() != args["slot"]:
            return {"code": "unhealthy", "detail": f"slot {args['slot']} is not the active one"}
        for part in parts_of(release, args["slot"]):
            verdict = installer_of(part, device).check(part)
            if verdict.code is not None:
                return {"code": verdict.code, "detail": verdict.detail}
    return {"code": None, "detail": ""}
