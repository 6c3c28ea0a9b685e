"""What the device would do next, and why it does nothing (rules R5, R6 and R7)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from device_agent.core.events import Moment
from device_agent.core.history import blocking, deployments, failed_before
from device_agent.core.plan import PlannedDeployment, PlannedRelease
from device_agent.core.record import Attempt, Purpose, Record, SlotContent
from device_agent.core.slots import active_content, slots_of
from fleet_protocol.manifest import Window, bucket
from fleet_protocol.timestamps import format_time

UP_TO_DATE: Final = "up to date"
ROLLBACK_PROBATION_S: Final = 60
"""Probation of an operator's rollback where the plan no longer says how long it should be."""
LOOK_AGAIN_S: Final = 900.0
"""The longest that the machine waits for a window without looking at the wall clock, which may be set."""
_WHY_MOST: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An attempt that may begin now. `tree` is set where the other slot already holds the release."""

    deployment: str
    purpose: Purpose
    release: PlannedRelease
    probation_s: int
    tree: str | None = None
    command: str | None = None
    irreversible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The choice, or why there is none; `wake_s` is the monotonic moment from which time alone may change that."""

    choice: Choice | None
    why: str
    wake_s: float | None = None


def choose(record: Record, at: Moment) -> Decision:
    """What to begin: a recall before an operator's rollback before an install; the same for the same arguments."""
    plan = record.plan
    current = plan is not None and at.wall_s < plan.expires_s
    first: list[Decision] = [*_recalls(record, at)] if current else []
    decisions = [*first, *_rollbacks(record)]
    chosen = next((decision for decision in decisions if decision.choice is not None), None)
    if chosen is not None:
        return chosen
    if plan is None:
        return Decision(choice=None, why="no group yet" if record.group is None else "no manifest yet")
    if not current:
        return Decision(choice=None, why="the manifest has expired")
    return _merged([*decisions, *_installs(record, at)])


def unwanted(record: Record, attempt: Attempt, at: Moment) -> tuple[str | None, str] | None:
    """Code and reason for which an attempt that has not switched is given up, or None where it goes on."""
    deployment = next((d for d in deployments(record) if d.id == attempt.deployment), None)
    if deployment is None:
        return None, "no longer deployed"
    if record.plan is not None and at.wall_s >= record.plan.expires_s:
        return None, "the manifest has expired"
    if attempt.purpose == "install":
        return _install_unwanted(record, attempt, deployment, at)
    if deployment.state != "recalled" or deployment.fallback is None:
        return None, "no longer recalled"
    return None if same_bytes(deployment.fallback, attempt.release) else (None, "the fallback has changed")


def misfit(record: Record, release: PlannedRelease) -> str | None:
    """Why this release's drivers do not fit the kernel that runs, or None where they do or it has none."""
    for target in release.targets:
        driver = target.install.driver
        if driver is not None and record.kernel not in driver.kernels:
            return f"kernel: {driver.module} is not built for {record.kernel or 'this kernel'}"
    return None


def takes_part(record: Record, deployment: PlannedDeployment) -> bool:
    """Whether this device is named, or its bucket lies below the share."""
    return record.device in deployment.devices or bucket(deployment.salt, record.device) < deployment.share_bp


def recalled_here(record: Record, deployment: PlannedDeployment) -> bool:
    """Whether what is installed came by this deployment, which is recalled."""
    content = active_content(record, deployment.release.package)
    return (
        deployment.state == "recalled"
        and content is not None
        and content.deployment == deployment.id
        and content.release.counter == deployment.release.counter
    )


def other_good(record: Record, package: str) -> SlotContent | None:
    """What the other slot holds, if something is installed and the other is good and not below the floor."""
    slots = slots_of(record, package)
    content = slots.content(slots.spare)
    if slots.active is None or content is None or content.standing != "good":
        return None
    floor = 0 if record.plan is None else record.plan.floors.get(package, 0)
    return content if content.release.counter >= floor else None


def same_bytes(one: PlannedRelease, other: PlannedRelease) -> bool:
    """Whether two releases differ at most in where their bytes may be fetched."""
    return _placeless(one) == _placeless(other)


def _recalls(record: Record, at: Moment) -> Iterator[Decision]:
    for deployment in deployments(record):
        if recalled_here(record, deployment):
            yield _recall(record, deployment, at)


def _recall(record: Record, deployment: PlannedDeployment, at: Moment) -> Decision:
    failure = blocking(record.recalls, deployment.id, at)
    if failure is not None:
        return Decision(choice=None, why=f"recalled, {failed_before(failure)}", wake_s=failure.retry_s)
    fallback = deployment.fallback
    floor = 0 if record.plan is None else record.plan.floors.get(deployment.release.package, 0)
    if fallback is None or fallback.counter == deployment.release.counter or fallback.counter < floor:
        return Decision(choice=None, why="recalled, nothing to go back to")
    if misfit(record, fallback) is not None:
        return Decision(choice=None, why=f"recalled, but {misfit(record, fallback)}")
    choice = Choice(deployment=deployment.id, purpose="recall", release=fallback, probation_s=deployment.probation_s)
    other = other_good(record, deployment.release.package)
    if other is not None and _is_fallback(other.release, fallback):
        return Decision(choice=replace(choice, release=other.release, tree=other.tree), why="recalled")
    if not fallback.targets:
        return Decision(choice=None, why="recalled, nothing to go back to")
    return Decision(choice=choice, why="recalled")


def _is_fallback(release: PlannedRelease, fallback: PlannedRelease) -> bool:
    """A fallback without targets is meant for devices that still hold it."""
    named = (release.version, release.counter) == (fallback.version, fallback.counter)
    return named and (not fallback.targets or _digests(release) == _digests(fallback))


def _rollbacks(record: Record) -> Iterator[Decision]:
    for package, command in record.rollbacks.items():
        active, other = active_content(record, package), other_good(record, package)
        if active is None or other is None:
            continue
        planned = (d.probation_s for d in deployments(record) if d.id == active.deployment)
        choice = Choice(
            deployment=active.deployment,
            purpose="rollback",
            release=other.release,
            probation_s=next(planned, ROLLBACK_PROBATION_S),
            tree=other.tree,
            command=command,
        )
        yield Decision(choice=choice, why="rollback")


def _installs(record: Record, at: Moment) -> Iterator[Decision]:
    packages = dict.fromkeys(deployment.release.package for deployment in deployments(record))
    several = len(packages) > 1
    for package in packages:
        decision = _install(record, package, at)
        named = several and decision.choice is None and decision.why != UP_TO_DATE
        yield replace(decision, why=f"{package}: {decision.why}") if named else decision


def _install(record: Record, package: str, at: Moment) -> Decision:
    """The newest deployment that may begin; else the reason of the newest that may not."""
    content = active_content(record, package)
    installed = 0 if content is None else content.release.counter
    newer = [d for d in deployments(record) if d.release.package == package and d.release.counter > installed]
    decisions = [_judge(record, d, at) for d in sorted(newer, key=lambda d: -d.release.counter)]
    if decisions:
        return replace(_merged(decisions), why=decisions[0].why)
    if content is not None and content.standing == "bad":
        return Decision(choice=None, why="running a release that failed: going back was not possible")
    return Decision(choice=None, why=UP_TO_DATE)


def _judge(record: Record, deployment: PlannedDeployment, at: Moment) -> Decision:
    """The acceptance order's end: state, refusal, membership, time, history."""
    if deployment.state != "active":
        return Decision(choice=None, why=deployment.state)
    if deployment.refusal is not None:
        return Decision(choice=None, why=deployment.refusal)
    kernel = misfit(record, deployment.release)
    if kernel is not None:
        return Decision(choice=None, why=kernel)
    if not takes_part(record, deployment):
        place = bucket(deployment.salt, record.device)
        return Decision(choice=None, why=f"in no wave yet: bucket {place} >= share {deployment.share_bp}")
    closed = _closed(deployment, at)
    if closed is not None:
        return closed
    failure = blocking(record.failures, deployment.id, at)
    accepted = failure is not None and failure.code == "no-way-back" and deployment.irreversible
    if failure is not None and not accepted:
        return Decision(choice=None, why=failed_before(failure), wake_s=failure.retry_s)
    choice = Choice(
        deployment=deployment.id,
        purpose="install",
        release=deployment.release,
        probation_s=deployment.probation_s,
        irreversible=deployment.irreversible,
    )
    return Decision(choice=choice, why="install")


def _closed(deployment: PlannedDeployment, at: Moment) -> Decision | None:
    """The decision to wait, where the deployment's time has not come."""
    not_before_s, window = deployment.not_before_s, deployment.window
    if not_before_s is not None and at.wall_s < not_before_s:
        wait_s = min(not_before_s - at.wall_s, LOOK_AGAIN_S)
        return Decision(choice=None, why=f"not before {format_time(not_before_s)}", wake_s=at.mono_s + wait_s)
    if window is not None and not window.holds(at.wall_s):
        wait_s = min(_opens_in_s(window, at.wall_s), LOOK_AGAIN_S)
        return Decision(choice=None, why="window", wake_s=at.mono_s + wait_s)
    return None


def _opens_in_s(window: Window, wall_s: float) -> float:
    return (window.start_min * 60.0 - wall_s) % 86_400.0


def _install_unwanted(
    record: Record, attempt: Attempt, deployment: PlannedDeployment, at: Moment
) -> tuple[str | None, str] | None:
    if deployment.state == "recalled":
        return "withdrawn", "recalled"
    if deployment.state == "held":
        return None, "held"
    if deployment.refusal is not None:
        return deployment.refusal, "refused"
    kernel = misfit(record, deployment.release)
    if kernel is not None:
        return "kernel", kernel
    if not takes_part(record, deployment):
        return None, "no longer taking part"
    if not same_bytes(deployment.release, attempt.release):
        return None, "the release has changed"
    first = next((d.choice for d in (*_recalls(record, at), *_rollbacks(record)) if d.choice is not None), None)
    if first is not None:
        return None, f"a {first.purpose} goes first"
    newest = _install(record, attempt.release.package, at).choice
    if newest is not None and newest.release.counter > attempt.release.counter:
        return None, f"superseded by {newest.release.version}"
    return None


def _merged(decisions: list[Decision]) -> Decision:
    """All reasons, and the first moment at which one of them may fall away; or the first choice."""
    chosen = next((decision for decision in decisions if decision.choice is not None), None)
    if chosen is not None:
        return chosen
    reasons = dict.fromkeys(decision.why for decision in decisions)
    telling = [why for why in reasons if why != UP_TO_DATE] or [UP_TO_DATE]
    moments = [decision.wake_s for decision in decisions if decision.wake_s is not None]
    return Decision(choice=None, why="; ".join(telling)[:_WHY_MOST], wake_s=min(moments, default=None))


def _placeless(release: PlannedRelease) -> PlannedRelease:
    return replace(release, targets=tuple(replace(target, urls=()) for target in release.targets))


def _digests(release: PlannedRelease) -> list[str]:
    return sorted(target.sha256 for target in release.targets)
