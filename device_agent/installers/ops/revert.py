"""Go back to the previous slot."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from device_agent.adapters.files import storing
from device_agent.core.codec import from_json
from device_agent.core.plan import PlannedRelease
from device_agent.installers.attempt_note import AttemptNote
from device_agent.installers.cache import empty_cache
from device_agent.installers.crash import crash_point
from device_agent.installers.left_over import settle_other
from device_agent.installers.port import Device, Part, PartId
from device_agent.installers.registry import device_of, in_order, installer_of, installer_of_kind, parts_of
from device_agent.installers.slots import SlotName, Slots
from device_agent.worker.context import WorkerContext
from fleet_protocol.errors import InstallError

_LATER: Final = frozenset({"io", "no-space", "read-only", "no-memory", "in-use", "locked"})
"""What may be gone by the next try; everything else of a release that comes back is that it does not start."""


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"package", "slot", "previous", "leaving", "release", "tree", "attempt"}` -> `{}`: what was before runs again.

    `previous` None means that there was nothing: the package is then gone. InstallError `altered` or `no-fallback`
    where the previous slot, or what was kept, is not what it was (attack B11): nothing is touched, and what runs, the
    release `leaving`, goes on running. `start` where all is as before but something of it does not run.
    """
    package, previous = str(args["package"]), args["previous"]
    device = device_of(context.settings)
    slots, note = device.slots(package), AttemptNote(device.state_dir, package)
    with storing(f"reverting {package}"):
        settle_other(note, args["attempt"], device)
        empty_cache(device.cache)  # what is put back needs room, and nothing on the way back needs a download
        switched = slots.active() != previous
        back = _back(args)
        program = PartId(package=package, part="", kind="service")  # runs, or nothing does: whatever was written down
        parts = in_order((*note.read(), *back, program))
        if switched:
            _prove(args, device, parts)
            _quiet(device, parts)
            crash_point("revert.before_switch")
            _switch(slots, previous)
            crash_point("revert.after_switch")
        _revert(device, parts, back)
        crash_point("revert.before_note")
        note.drop()
        crash_point("revert.after_note")
    return {}


def _prove(args: Mapping[str, Any], device: Device, parts: tuple[PartId, ...]) -> None:
    """The way back is whole; otherwise what an earlier try has stopped runs again."""
    try:
        if args["previous"] is not None:
            device.slots(args["package"]).verify(args["previous"], args["tree"])
        for part in parts:
            installer_of_kind(part.kind, device).prove_way_back(part)
    except InstallError:
        for leaving in parts_of(from_json(PlannedRelease, args["leaving"]), args["slot"]):
            with suppress(InstallError):  # it was on its way out: that it does not start is no news
                installer_of(leaving, device).activate(leaving)
        raise


def _quiet(device: Device, parts: tuple[PartId, ...]) -> None:
    """Nothing of the release runs. What there is nobody left to stop with, does not run."""
    for part in reversed(parts):
        try:
            installer_of_kind(part.kind, device).quiet(part)
        except InstallError as error:
            if error.code == "unsupported":
                continue
            if error.code in _LATER:
                raise
            raise InstallError("io", error.detail) from error


def _revert(device: Device, parts: tuple[PartId, ...], back: Mapping[PartId, Part]) -> None:
    """Every part, whatever becomes of the others. What others need comes first, on the way back too: a service starts
    on the old driver."""
    failed: list[InstallError] = []
    for part in parts:
        try:
            installer_of_kind(part.kind, device).revert(part, back.get(part))
        except InstallError as error:
            if error.code in _LATER:
                raise
            failed.append(error)
    if failed:
        raise InstallError("start", "; ".join(error.detail for error in failed))


def _back(args: Mapping[str, Any]) -> dict[PartId, Part]:
    """The previous release's parts."""
    if args["previous"] is None:
        return {}
    if args["release"] is None or args["tree"] is None:
        raise InstallError("no-fallback", f"nothing is known of slot {args['previous']}")
    release = from_json(PlannedRelease, args["release"])
    return {part.id: part for part in parts_of(release, args["previous"])}


def _switch(slots: Slots, previous: SlotName | None) -> None:
    if previous is None:
        slots.leave()
    else:
        slots.switch(previous)
