"""Updates and their verbs."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from server.api.update_bodies import JobAnswer, JobsAnswer, ReasonBody, RetriedAnswer
from server.api.use_cases import UseCases
from server.domain.job import Job
from server.domain.rollout import Rollout, RolloutState
from server.domain.verbs import Verb
from server.ports import Reads
from server.services import job_view
from server.services.job_view import JobView
from server.services.steering import find
from server.services.update_request import Id, UpdateRequest

StateName = Annotated[RolloutState | None, Query(description="Only updates in this state.")]
GroupName = Annotated[Id | None, Query(description="Only updates of this group.")]
Most = Annotated[int, Query(ge=1, le=1_000, description="How many of the newest.")]


def router(cases: UseCases) -> APIRouter:
    """The routes below /api/updates."""
    routes = APIRouter(prefix="/api/updates", tags=["updates"])
    _add_views(routes, cases)
    _add_verbs(routes, cases)
    return routes


def _add_views(routes: APIRouter, cases: UseCases) -> None:
    @routes.post("", status_code=201)
    def create(body: UpdateRequest, response: Response) -> JobAnswer:
        """Publish a release of the catalogue to a group in waves, or to devices by name.

        With `update_id` the same request again returns the same job (200); another request under that id is a
        conflict. The first wave opens within a second; every later one on evidence.
        """
        job_id, made = cases.publishing.create(body)
        if not made:
            response.status_code = 200
        return JobAnswer.of(_view(cases, job_id))

    @routes.get("")
    def list_updates(state: StateName = None, group: GroupName = None, most: Most = 100) -> JobsAnswer:
        """Updates, the newest first."""
        now_s = cases.clock.now_s()
        with cases.store.read() as reads:
            found = {rollout.id: rollout for rollout in reads.rollouts(group, state)}
            jobs = [job for job in reads.jobs(group) if job.id in found]
            newest = sorted(jobs, key=lambda job: (job.created_s, job.id), reverse=True)[:most]
            views = [_counted(cases, reads, job, found[job.id], now_s) for job in newest]
        return JobsAnswer(updates=[JobAnswer.of(view) for view in views])

    @routes.get("/{job_id}")
    def show(job_id: Id) -> JobAnswer:
        """One update, with its evidence."""
        return JobAnswer.of(_view(cases, job_id))


def _add_verbs(routes: APIRouter, cases: UseCases) -> None:
    @routes.post("/{job_id}/hold")
    def hold(job_id: Id, body: ReasonBody | None = None) -> JobAnswer:
        """No device begins from now on; those that switch already go on to their end."""
        return _steer(cases, job_id, Verb.HOLD, body)

    @routes.post("/{job_id}/resume")
    def resume(job_id: Id, body: ReasonBody | None = None) -> JobAnswer:
        """Go on from where it was held; what was known to have failed is excused."""
        return _steer(cases, job_id, Verb.RESUME, body)

    @routes.post("/{job_id}/advance")
    def advance(job_id: Id, body: ReasonBody | None = None) -> JobAnswer:
        """Open the next wave without waiting for the evidence of this one. Limits still stop the rollout."""
        return _steer(cases, job_id, Verb.ADVANCE, body)

    @routes.post("/{job_id}/recall")
    def recall(job_id: Id, body: ReasonBody | None = None) -> JobAnswer:
        """Order every device back to the release before; this can not be taken back."""
        return _steer(cases, job_id, Verb.RECALL, body)

    @routes.post("/{job_id}/rollback")
    def roll_back(job_id: Id, body: ReasonBody | None = None) -> JobAnswer:
        """Another name for `recall`."""
        return _steer(cases, job_id, Verb.RECALL, body)

    @routes.post("/{job_id}/retry")
    def retry(job_id: Id) -> RetriedAnswer:
        """Have every device that failed try once more."""
        retried = cases.retrying.retry(job_id)
        return RetriedAnswer.with_devices(_view(cases, job_id), retried)


def _steer(cases: UseCases, job_id: str, verb: Verb, body: ReasonBody | None) -> JobAnswer:
    cases.steering.steer(job_id, verb, body.reason if body else "")
    return JobAnswer.of(_view(cases, job_id))


def _view(cases: UseCases, job_id: str) -> JobView:
    with cases.store.read() as reads:
        job, rollout = find(reads, job_id)
        return _counted(cases, reads, job, rollout, cases.clock.now_s())


def _counted(cases: UseCases, reads: Reads, job: Job, rollout: Rollout, now_s: float) -> JobView:
    contents = cases.catalogue.contents
    release = None if contents is None else contents.release(rollout.package, rollout.version)
    return job_view.view(reads, job, rollout, now_s, None if release is None else release.classes)
