"""Go back to the previous slot."""

from collections.abc import Mapping
from typing import Any

from device_agent.adapters.files import storing
from device_agent.core.codec import from_json
from device_agent.core.plan import PlannedRelease
from device_agent.installers.attempt_note import AttemptNote
from device_agent.installers.crash import crash_point
from device_agent.installers.port import Part, PartId
from device_agent.installers.registry import device_of, in_order, installer_of_kind, parts_of
from device_agent.installers.slots import SlotName, Slots
from device_agent.worker.context import WorkerContext
from fleet_protocol.errors import InstallError


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"package", "slot", "previous", "release", "tree"}` -> `{}`: the previous release runs again.

    `previous` None means that there was none: the package is then gone. InstallError `altered` where the previous
    slot is not what was once written there: nothing is touched, and what runs goes on running.
    """
    package, previous = str(args["package"]), args["previous"]
    device = device_of(context.settings)
    slots, note = device.slots(package), AttemptNote(device.state_dir, package)
    with storing(f"reverting {package}"):
        back = _back(args, slots)
        program = PartId(package=package, part="", kind="service")  # runs, or nothing does: whatever was written down
        parts = in_order((*note.read(), *back, program))
        if slots.active() != previous:
            for part in reversed(parts):
                installer_of_kind(part.kind, device).quiet(part)
            crash_point("revert.before_switch")
            _switch(slots, previous)
            crash_point("revert.after_switch")
        for part in parts:  # what others need comes first, on the way back too: a service starts on the old driver
            installer_of_kind(part.kind, device).revert(part, back.get(part))
        crash_point("revert.before_note")
        note.drop()
        crash_point("revert.after_note")
    return {}


def _back(args: Mapping[str, Any], slots: Slots) -> dict[PartId, Part]:
    """The previous release's parts, once its slot is known to be whole (attack B11)."""
    if args["previous"] is None:
        return {}
    if args["release"] is None or args["tree"] is None:
        raise InstallError("no-fallback", f"nothing is known of slot {args['previous']}")
    slots.verify(args["previous"], args["tree"])
    release = from_json(PlannedRelease, args["release"])
    return {part.id: part for part in parts_of(release, args["previous"])}


def _switch(slots: Slots, previous: SlotName | None) -> None:
    if previous is None:
        slots.leave()
    else:
        slots.switch(previous)
