"""What is left to be done after an attempt, until it is known to be done (rule R28)."""

from dataclasses import replace
from typing import Literal

from device_agent.core.effects import Commit, Discard, Effect
from device_agent.core.record import Record
from device_agent.core.slots import slots_of


def uncommitted(record: Record, package: str) -> Record:
    """The record of a device that has to drop what only a rollback of the package would have needed."""
    return replace(record, uncommitted=(*_without(record.uncommitted, package), package))


def untidy(record: Record, package: str) -> Record:
    """The record of a device that has to give back space of the package."""
    return replace(record, untidy=(*_without(record.untidy, package), package))


def tidied(record: Record, package: str, op: Literal["commit", "discard"]) -> Record:
    """One of the two is done."""
    if op == "commit":
        return replace(record, uncommitted=_without(record.uncommitted, package))
    return replace(record, untidy=_without(record.untidy, package))


def tidying(record: Record, package: str | None = None) -> tuple[Effect, ...]:
    """What is not known to be done, of one package or all; each is harmless where it had been done."""
    effects: list[Effect] = []
    for name in dict.fromkeys((*record.uncommitted, *record.untidy)):
        if package not in (None, name):
            continue
        slots = slots_of(record, name)
        content = slots.content(slots.active)
        if name in record.uncommitted and slots.active is not None and content is not None:
            effects.append(Commit(package=name, slot=slots.active, release=content.release))
        if name in record.untidy:
            empty = slots.spare if slots.content(slots.spare) is None else None
            effects.append(Discard(package=name, slot=empty))
    return tuple(effects)


def _without(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(other for other in names if other != name)
