"""The verbs on a job: hold, resume, advance and recall. `retry` needs the devices and lives in retrying.py.

What is possible in which state is the table in server.domain.verbs. A recall is always a newer manifest, issued in
the same transaction.
"""

from dataclasses import replace
from functools import partial

from fleet_protocol.errors import PolicyError
from server.domain import engine
from server.domain.job import Job
from server.domain.rollout import Rollout, RolloutState
from server.domain.verbs import Verb, after
from server.ports import Clock, Reads
from server.services import audit
from server.services.manifests import Manifests, current_deployments
from server.services.publication import Publication
from server.services.rollout_tick import Observe
from server.services.succession import recall_along


class Steering:
    """Carries out an operator's verbs."""

    def __init__(self, publication: Publication, manifests: Manifests, observe: Observe, *, clock: Clock) -> None:
        self._publication = publication
        self._manifests = manifests
        self._observe = observe
        self._clock = clock

    def steer(self, job_id: str, verb: Verb, reason: str = "") -> None:
        """Do it, or raise PolicyError `unknown-update`, `wrong-state` or `conflict` with what to do instead."""
        now_s = self._clock.now_s()
        with self._publication.begin() as change:
            job, rollout = find(change.work, job_id)
            if job.superseded:
                raise PolicyError("wrong-state", f"{job_id} was replaced by a newer update of {rollout.package}")
            state = after(rollout.state, verb)
            if verb in (Verb.RESUME, Verb.ADVANCE):
                check_lives(rollout, now_s)
            changed = self._after(change.work, rollout, verb, state, reason)
            change.work.put_rollout(changed)
            reissue = partial(self._manifests.reissue, change, rollout.group, now_s)
            if state is RolloutState.RECALLED:
                recall_along(change, changed, now_s, reissue)
            elif state is not rollout.state:
                reissue()
            audit.record(change.work, now_s, who=audit.OPERATOR, verb=verb, subject=job_id, detail=reason)

    def _after(self, work: Reads, rollout: Rollout, verb: Verb, state: RolloutState, reason: str) -> Rollout:
        if verb is Verb.RESUME:
            _check_alone(work, rollout)
            now_s = self._clock.now_s()
            return engine.resume(rollout, self._observe(work, rollout, now_s))
        if verb is Verb.ADVANCE:
            if rollout.wave + 1 >= len(rollout.policy.waves):
                raise PolicyError("wrong-state", "the last wave is open already: there is none to advance to")
            return replace(rollout, advance=True)
        return replace(rollout, state=state, reason=reason or f"{verb} by an operator", advance=False)


def find(work: Reads, job_id: str) -> tuple[Job, Rollout]:
    """The job and its rollout, or PolicyError `unknown-update`."""
    job, rollout = work.job(job_id), work.rollout(job_id)
    if job is None or rollout is None:
        raise PolicyError("unknown-update", f"no update {job_id}: GET /api/updates lists them")
    return job, rollout


def check_lives(rollout: Rollout, now_s: float) -> None:
    """Raise PolicyError `wrong-state` where the rollout has expired, so that no device would begin."""
    if rollout.has_expired(now_s):
        raise PolicyError(
            "wrong-state", f"{rollout.id} has expired: publish {rollout.package} {rollout.version} again to go on"
        )


def _check_alone(work: Reads, rollout: Rollout) -> None:
    """No other rollout of the package advances in the group."""
    for job, other in current_deployments(work, rollout.group):
        if other.package == rollout.package and other.state is RolloutState.ACTIVE and other.id != rollout.id:
            raise PolicyError(
                "conflict",
                f"{other.package} {other.version} is being rolled out by {job.id}: hold or recall that first",
            )
