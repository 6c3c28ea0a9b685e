"""What an effect of the machine asks of the worker, and which event its answer is. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from device_agent.core.codec import to_json
from device_agent.core.effects import Activate, Check, Commit, Discard, Effect, Fetch, Revert, Stage
from device_agent.core.events import Activated, Checked, Event, Failed, Fetched, Moment, Reverted, Staged, Tidied
from device_agent.core.record import Attempt, Record
from device_agent.core.slots import slots_of
from fleet_protocol.errors import CODES


@dataclass(frozen=True, slots=True)
class Operation:
    """A worker's op and its arguments; `subject` is the deployment, or the package of a tidying."""

    op: str
    args: Mapping[str, Any]
    subject: str


def operation(effect: Effect, record: Record) -> Operation | None:
    """The operation of a worker effect, or None for an effect that needs no worker."""
    if isinstance(effect, Commit):
        args = {"release": to_json(effect.release), "slot": effect.slot}
        return Operation("commit", args, effect.package)
    if isinstance(effect, Discard):
        return Operation("discard", {"package": effect.package, "slot": effect.slot}, effect.package)
    attempt = record.attempt
    if attempt is None:
        return None
    release = to_json(attempt.release)
    slots = slots_of(record, attempt.release.package)
    if isinstance(effect, Fetch):
        return Operation("fetch", {"release": release}, attempt.deployment)
    if isinstance(effect, Stage):
        args = {
            "release": release,
            "slot": attempt.slot,
            "active": slots.active,
            "irreversible": attempt.irreversible,
        }
        return Operation("stage", args, attempt.deployment)
    if isinstance(effect, Activate):
        before = slots.content(attempt.previous)
        args = {
            "release": release,
            "slot": attempt.slot,
            "previous": attempt.previous,
            "before": None if before is None else to_json(before.release),
            "tree": attempt.tree,
            "attempt": _name(attempt),
        }
        return Operation("activate", args, attempt.deployment)
    if isinstance(effect, Check):
        return Operation("check", {"release": release, "slot": attempt.slot}, attempt.deployment)
    if isinstance(effect, Revert):
        before = slots.content(attempt.previous)
        args = {
            "package": attempt.release.package,
            "slot": attempt.slot,
            "previous": attempt.previous,
            "leaving": release,
            "release": None if before is None else to_json(before.release),
            "tree": None if before is None else before.tree,
            "attempt": _name(attempt),
        }
        return Operation("revert", args, attempt.deployment)
    return None


def _name(attempt: Attempt) -> str:
    """What no other attempt on this device is called; its slot tells an installation from its recall."""
    return f"{attempt.deployment}/{attempt.number}/{attempt.slot}"


def event(done: Operation, answer: Mapping[str, Any], at: Moment) -> Event | None:
    """The event that a worker's answer means; None where a tidying failed, which is tried again later."""
    if done.op in ("commit", "discard"):
        op: Literal["commit", "discard"] = "commit" if done.op == "commit" else "discard"
        return Tidied(at=at, package=done.subject, op=op) if answer.get("ok") else None
    if done.op == "check":
        return _checked(done, answer, at)
    if not answer.get("ok"):
        code, detail = fault(answer)
        wish = answer.get("retry_after_s")
        retry_after_s = float(wish) if isinstance(wish, (int, float)) else None
        return Failed(at=at, deployment=done.subject, code=code, detail=detail, retry_after_s=retry_after_s)
    if done.op == "stage":
        return Staged(at=at, deployment=done.subject, tree=str(answer["result"]["tree"]))
    if done.op == "fetch":
        return Fetched(at=at, deployment=done.subject)
    return (Activated if done.op == "activate" else Reverted)(at=at, deployment=done.subject)


def fault(answer: Mapping[str, Any]) -> tuple[str, str]:
    """Code and detail of an answer that is not ok; `worker` where its code is none of ours."""
    code, detail = answer.get("code"), answer.get("detail")
    return (code if isinstance(code, str) and code in CODES else "worker"), (detail if isinstance(detail, str) else "")


def _checked(done: Operation, answer: Mapping[str, Any], at: Moment) -> Event:
    """A check that could not be made counts as one that failed: silence is never health."""
    if not answer.get("ok"):
        code, detail = fault(answer)
        return Checked(at=at, deployment=done.subject, code="unhealthy", detail=f"no check: {code}: {detail}")
    result = answer["result"]
    return Checked(at=at, deployment=done.subject, code=result["code"], detail=str(result["detail"]))
