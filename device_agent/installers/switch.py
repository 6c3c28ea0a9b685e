"""The one switch that all parts of a release share."""

from device_agent.installers.crash import crash_point
from device_agent.installers.slots import SlotName, Slots


def switch_to(slots: Slots, slot: SlotName) -> None:
    """Make the slot active; the second part of a release finds it done."""
    crash_point("activate.before_switch")
    slots.switch(slot)
    crash_point("activate.after_switch")
