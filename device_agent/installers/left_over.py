"""What an attempt has left on the disk whose tidying was lost: it is over before the next one begins."""

from contextlib import suppress

from device_agent.installers.attempt_note import AttemptNote
from device_agent.installers.crash import crash_point
from device_agent.installers.port import Device
from device_agent.installers.registry import in_order, installer_of_kind
from fleet_protocol.errors import InstallError


def settle_other(note: AttemptNote, attempt: str, device: Device) -> None:
    """Nothing that another attempt than `attempt` has kept is taken for the way back from this one."""
    if not note.is_of_another(attempt):
        return
    for part in in_order(note.read()):
        # A module that could not be loaded any more is all that this can complain of, and it is about to be replaced.
        with suppress(InstallError):
            installer_of_kind(part.kind, device).commit(part)
        crash_point("left_over.after_part")
    note.drop()
    crash_point("left_over.after_note")
