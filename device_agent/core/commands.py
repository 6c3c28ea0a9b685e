"""What an operator may order: `rollback` and `retry` (rule R20)."""

from dataclasses import dataclass, replace
from typing import Final

from device_agent.core.attempts import BEFORE_SWITCH, abandon, turn_back
from device_agent.core.choice import other_good
from device_agent.core.effects import Effect, Reply
from device_agent.core.events import Commanded, Moment
from device_agent.core.history import BY_OPERATOR, remember, told_to_retry
from device_agent.core.manifests import reconsider
from device_agent.core.record import Attempt, Record
from device_agent.core.reports import Move, report
from device_agent.core.slots import slots_of

REMEMBERED: Final = 64
"""Ids of commands that are remembered; older ones have expired."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the operator is told."""

    code: str | None
    detail: str


def command(record: Record, event: Commanded) -> Move:
    """Carry the command out once, answer it and report what came of it."""
    if event.id in record.commands:
        return record, (Reply(id=event.id, code="command", detail="already carried out"),)
    record = replace(record, commands=(*record.commands, event.id)[-REMEMBERED:])
    counter = record.report_counter
    record, effects, answer = _carry_out(record, event)
    if record.report_counter == counter:
        record, reports = report(record, event.at)
        effects = (*reports, *effects)
    return record, (*effects, Reply(id=event.id, code=answer.code, detail=answer.detail))


def _carry_out(record: Record, event: Commanded) -> tuple[Record, tuple[Effect, ...], _Answer]:
    if event.name == "rollback":
        return _rollback(record, event)
    if event.name == "retry":
        return _retry(record, event)
    return record, (), _Answer("command", "this command is not for the machine")


def _retry(record: Record, event: Commanded) -> tuple[Record, tuple[Effect, ...], _Answer]:
    record, told = told_to_retry(record, event.at, event.package)
    waiting = record.stage in ("downloading", "rolling_back") and record.wake_s is not None
    if waiting and _concerns(record.attempt, event.package):
        record, told = replace(record, retries=0, wake_s=event.at.mono_s), told + 1
    elif record.stage == "idle":
        record = replace(record, wake_s=event.at.mono_s)
    return record, (), _Answer(None, f"{told} deployments may be tried again" if told else "nothing had failed")


def _rollback(record: Record, event: Commanded) -> tuple[Record, tuple[Effect, ...], _Answer]:
    """An attempt in progress is undone; where there is none, the package's other slot takes over."""
    attempt = record.attempt
    if attempt is not None and _concerns(attempt, event.package):
        return _undo(record, attempt, event.at)
    packages = list(record.packages) if event.package is None else [event.package]
    able = [package for package in packages if other_good(record, package) is not None]
    if not able:
        return record, (), _cannot(record, packages)
    record = replace(record, rollbacks={**record.rollbacks, **dict.fromkeys(able, event.id)})
    record, effects = _make_way(record, event.at)
    return record, effects, _Answer(None, f"rolling back {', '.join(able)}")


def _make_way(record: Record, at: Moment) -> Move:
    """Now, or as soon as the attempt in progress has ended; one that has not switched is in the way (R7)."""
    if record.stage == "idle":
        return replace(record, wake_s=at.mono_s), ()
    return reconsider(record, at) if record.stage in BEFORE_SWITCH else (record, ())


def _undo(record: Record, attempt: Attempt, at: Moment) -> tuple[Record, tuple[Effect, ...], _Answer]:
    package = attempt.release.package
    if record.stage == "rolling_back" or attempt.purpose != "install":
        return record, (), _Answer("conflict", f"{package} is already going back")
    if record.stage in BEFORE_SWITCH:
        record = remember(record, at, attempt.deployment, "withdrawn", BY_OPERATOR, again=False)
        record, effects = abandon(record, at, "withdrawn", BY_OPERATOR)
    else:
        record, effects = turn_back(record, at, "withdrawn", BY_OPERATOR)
    return record, effects, _Answer(None, f"going back from {package} {attempt.release.version}")


def _cannot(record: Record, packages: list[str]) -> _Answer:
    foreign = [package for package in packages if package not in record.packages]
    if foreign:
        return _Answer("no-fallback", f"there is no package {', '.join(foreign)} on this device")
    for package in packages:
        slots = slots_of(record, package)
        other = slots.content(slots.spare)
        if slots.active is not None and other is not None and other.standing == "good":
            return _Answer("floor", f"{package} {other.release.version} is below the catalogue's floor")
    return _Answer("no-fallback", "no other slot holds a good release")


def _concerns(attempt: Attempt | None, package: str | None) -> bool:
    return attempt is not None and package in (None, attempt.release.package)
