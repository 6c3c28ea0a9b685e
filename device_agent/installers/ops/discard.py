"""Empty a slot and the cache."""

from collections.abc import Mapping
from typing import Any

from device_agent.adapters.files import storing
from device_agent.installers.cache import empty_cache
from device_agent.installers.crash import crash_point
from device_agent.installers.registry import device_of
from device_agent.installers.slots import SlotName
from device_agent.worker.context import WorkerContext


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"package", "slot"}` -> `{}`: the slot, if one is named, and all downloads give their space back.

    Raises InstallError `occupied` for the active slot.
    """
    package = str(args["package"])
    slot: SlotName | None = args["slot"]
    device = device_of(context.settings)
    with storing(f"discarding {package}"):
        crash_point("discard.before_clear")
        if slot is not None:
            device.slots(package).clear(slot)
        crash_point("discard.after_clear")
        empty_cache(device.cache)
        crash_point("discard.after_cache")
    return {}
