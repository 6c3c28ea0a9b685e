"""Changes to what the record says of a package's two slots."""

from dataclasses import replace
from typing import Final

from device_agent.core.record import PackageSlots, Record, SlotContent, SlotName, Standing

EMPTY: Final = PackageSlots()


def slots_of(record: Record, package: str) -> PackageSlots:
    """The package's slots; empty ones for a package that was never installed."""
    return record.packages.get(package, EMPTY)


def active_content(record: Record, package: str) -> SlotContent | None:
    """What is installed and committed, or None."""
    slots = slots_of(record, package)
    return slots.content(slots.active)


def with_content(record: Record, package: str, slot: SlotName, content: SlotContent | None) -> Record:
    """The record with `slot` holding `content`."""
    slots = slots_of(record, package)
    changed = replace(slots, a=content) if slot == "a" else replace(slots, b=content)
    return replace(record, packages={**record.packages, package: changed})


def with_standing(record: Record, package: str, slot: SlotName, standing: Standing) -> Record:
    """The record with the content of `slot`, if there is any, of this standing."""
    content = slots_of(record, package).content(slot)
    return record if content is None else with_content(record, package, slot, replace(content, standing=standing))


def with_active(record: Record, package: str, slot: SlotName | None) -> Record:
    """The record with `slot` committed."""
    return replace(record, packages={**record.packages, package: replace(slots_of(record, package), active=slot)})
