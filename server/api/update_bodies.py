"""What the API answers about updates."""

from typing import Any

from pydantic import BaseModel, Field

from server.api.body import Body
from server.services.job_view import JobView
from server.services.retrying import Retried


class ReasonBody(Body):
    """Why, for the audit log and for whoever looks later."""

    reason: str = Field("", max_length=1_000)


class WaveAnswer(BaseModel):
    """One wave: a cumulative share in percent, devices by name, and whether it is open.

    `selected` is how many devices take part once it is open; of a wave that is not open yet, as the group is now.
    """

    share: float
    devices: list[str]
    open: bool
    selected: int


class CountsAnswer(BaseModel):
    """Devices of the group by where they are with this update; `withdrawn` ones were ordered back and went."""

    devices: int
    selected: int
    committed: int
    failed: int
    withdrawn: int
    in_progress: int
    silent: int
    waiting: int


class FailureAnswer(BaseModel):
    """One device's reason."""

    device: str
    code: str
    detail: str


class JobAnswer(BaseModel):
    """An update. `wave` is the index of the newest open wave, -1 before the first; times are epoch seconds.

    From `expires` on no device begins any more.
    """

    job_id: str
    group: str
    update_type: str
    package: str
    version: str
    counter: int
    state: str
    superseded: bool
    wave: int
    waves: list[WaveAnswer]
    reason: str
    description: str
    created: float
    expires: float | None
    counts: CountsAnswer
    failures: list[FailureAnswer]

    @classmethod
    def of(cls, view: JobView) -> "JobAnswer":
        """The answer for a view."""
        return cls(**cls.members(view))

    @classmethod
    def members(cls, view: JobView) -> dict[str, Any]:
        """The constructor's arguments for a view."""
        job, rollout, counts = view.job, view.rollout, view.counts
        return {
            "job_id": job.id,
            "group": rollout.group,
            "update_type": job.update_type,
            "package": rollout.package,
            "version": rollout.version,
            "counter": rollout.counter,
            "state": rollout.state.value,
            "superseded": job.superseded,
            "wave": rollout.wave,
            "waves": [
                WaveAnswer(
                    share=wave.share_bp / 100, devices=list(wave.devices), open=index <= rollout.wave, selected=size
                )
                for index, (wave, size) in enumerate(zip(rollout.policy.waves, view.sizes, strict=True))
            ],
            "reason": rollout.reason,
            "description": job.description,
            "created": job.created_s,
            "expires": rollout.policy.until_s,
            "counts": CountsAnswer.model_validate(counts, from_attributes=True),
            "failures": [FailureAnswer(device=f.device, code=f.code, detail=f.detail) for f in view.failures],
        }


class JobsAnswer(BaseModel):
    """Updates, the newest first."""

    updates: list[JobAnswer]


class RetriedAnswer(JobAnswer):
    """The update, the devices that will try again, and those that did not answer."""

    accepted: list[str]
    unanswered: list[str]

    @classmethod
    def with_devices(cls, view: JobView, retried: Retried) -> "RetriedAnswer":
        """The answer for a view and what became of the retry."""
        return cls(**cls.members(view), accepted=list(retried.accepted), unanswered=list(retried.unanswered))
