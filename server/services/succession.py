"""How deployments of one package take each other's place in a group.

Rules, cited by number in the tests:

Y1. A rollout that completes for a whole audience supersedes the older deployments of its package to that audience.
Y2. A release that is published again takes the place of its deployments to the same audience at once, so that no
    device is offered one release by two deployments. Who has it reports so when a wave reaches it.
Y3. A recall goes for every deployment of the release to that audience: those that stand, and those that have left the
    manifest while some device still says that it has the release from them. So it also reaches a device that was
    away, or that no wave of the newer deployment had reached yet.
Y4. A recall is never held up by Y3: neither by a row that can not be read nor by a manifest that would be too large.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from loguru import logger

from fleet_protocol.errors import PolicyError
from server.domain.job import Job
from server.domain.rollout import Rollout, RolloutState
from server.ports import Reads
from server.services import audit
from server.services.audience import Audience
from server.services.manifests import current_deployments
from server.services.publication import Change


def supersede(change: Change, newer: Rollout) -> None:
    """Rule Y1 for a rollout that is complete, Y2 for one that is published; what is under way is left alone."""
    replaced = _is_settled if newer.state is RolloutState.COMPLETE else _is_there_already
    for job, rollout in current_deployments(change.work, newer.group):
        if rollout.id != newer.id and replaced(rollout, newer) and _covers(newer, rollout):
            change.work.put_job(replace(job, superseded=True))


def recall_along(change: Change, recalled: Rollout, now_s: float, reissue: Callable[[], object]) -> None:
    """Rule Y3 for a rollout that is recalled in this change; `reissue` makes the group's manifest.

    Raises what `reissue` raises without the others (Y4).
    """
    along = [pair for pair in _deployed(change.work, recalled) if _goes_along(pair[1], recalled)]
    reason = f"recalled with {recalled.id}"
    for job, rollout in along:
        change.work.put_job(replace(job, superseded=False))
        change.work.put_rollout(replace(rollout, state=RolloutState.RECALLED, reason=reason, advance=False))
    try:
        reissue()
    except PolicyError as error:
        if not along:
            raise
        logger.error("{} is recalled without the deployments of the same release before it: {}", recalled.id, error)
        for job, rollout in along:
            change.work.put_job(job)
            change.work.put_rollout(rollout)
        reissue()
        return
    for job, _ in along:
        audit.record(change.work, now_s, who=audit.ENGINE, verb="recall", subject=job.id, detail=reason)


def _goes_along(rollout: Rollout, recalled: Rollout) -> bool:
    return (
        rollout.id != recalled.id
        and rollout.state is not RolloutState.RECALLED
        and _is_same_release(rollout, recalled)
        and _covers(recalled, rollout)
    )


def _deployed(work: Reads, recalled: Rollout) -> Iterator[tuple[Job, Rollout]]:
    """Deployments of the group that stand, or that some device has its release from; unreadable ones are left out."""
    for job_id in dict.fromkeys((*work.standing_jobs(recalled.group), *_sources(work, recalled))):
        try:
            job, rollout = work.job(job_id), work.rollout(job_id)
        except PolicyError as error:
            logger.error("{} is not looked at for the recall of {}: {}", job_id, recalled.id, error)
            continue
        if job is not None and rollout is not None and rollout.group == recalled.group:
            yield job, rollout


def _sources(work: Reads, recalled: Rollout) -> list[str]:
    """The deployments from which the group's devices say that they have the release."""
    try:
        devices = work.devices(recalled.group)
    except PolicyError as error:
        logger.error("devices of {} can not be read for the recall of {}: {}", recalled.group, recalled.id, error)
        return []
    found = {
        item.deployment
        for device in devices
        for item in device.installed
        if item.deployment is not None and (item.package, item.counter) == (recalled.package, recalled.counter)
    }
    return sorted(found)


def _is_settled(older: Rollout, newer: Rollout) -> bool:
    """Rule Y1."""
    return older.package == newer.package and older.state is not RolloutState.ACTIVE


def _is_there_already(older: Rollout, newer: Rollout) -> bool:
    """Rule Y2. A recalled one stays, for devices that were away when it was recalled."""
    return _is_same_release(older, newer) and older.state in (RolloutState.HELD, RolloutState.COMPLETE)


def _is_same_release(one: Rollout, other: Rollout) -> bool:
    return (one.package, one.counter) == (other.package, other.counter)


def _covers(wider: Rollout, other: Rollout) -> bool:
    return Audience.of(wider.policy).covers(Audience.of(other.policy))
