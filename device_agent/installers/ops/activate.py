"""Make the release's slot the active one."""

from collections.abc import Mapping
from typing import Any

from device_agent.adapters.files import storing
from device_agent.core.codec import from_json
from device_agent.core.plan import PlannedRelease
from device_agent.installers.attempt_note import AttemptNote
from device_agent.installers.crash import crash_point
from device_agent.installers.left_over import settle_other
from device_agent.installers.port import Device, Part
from device_agent.installers.registry import device_of, in_order, installer_of, installer_of_kind, parts_of
from device_agent.worker.context import WorkerContext


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"release", "slot", "previous", "before", "tree", "attempt"}` -> `{}`: the slot is active, the release started.

    `before` is the release in slot `previous`, or null; `attempt` names the attempt. The slot is read back and compared
    with `tree` first; InstallError `altered` changes nothing.
    """
    release = from_json(PlannedRelease, args["release"])
    device = device_of(context.settings)
    parts = parts_of(release, args["slot"])
    for part in parts:
        installer_of(part, device)
    leaving = _leaving(args, parts)
    with storing(f"activating {release.package}"):
        slots, note = device.slots(release.package), AttemptNote(device.state_dir, release.package)
        settle_other(note, args["attempt"], device)
        slots.verify(args["slot"], args["tree"])
        slots.settle(args["slot"])
        crash_point("activate.before_note")
        note.write(args["attempt"], (part.id for part in (*leaving, *parts)))
        crash_point("activate.after_note")
        if slots.active() != args["slot"]:
            _quiet((*leaving, *parts), device)
            crash_point("activate.before_switch")
            slots.switch(args["slot"])
            crash_point("activate.after_switch")
        for part in reversed(leaving):
            installer_of(part, device).retire(part)
        for part in parts:
            installer_of(part, device).activate(part)
    return {}


def _leaving(args: Mapping[str, Any], parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The parts of the release before that the new one has no more."""
    if args["before"] is None or args["previous"] is None:
        return ()
    staying = {part.id for part in parts}
    before = parts_of(from_json(PlannedRelease, args["before"]), args["previous"])
    return tuple(part for part in before if part.id not in staying)


def _quiet(parts: tuple[Part, ...], device: Device) -> None:
    for part in reversed(in_order(part.id for part in parts)):
        installer_of_kind(part.kind, device).quiet(part)
