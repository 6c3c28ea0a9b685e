"""`retry` on a job: the devices that failed are told to forget it, and count as untried once they say that they have.

The deployment stays the same, so devices that have committed are not touched, nor are those that an operator ordered
back. While the job is held nothing is tried; resuming it then includes these devices.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fleet_protocol.errors import PolicyError
from fleet_protocol.messages import Reply
from server.domain.fleet import AttemptSeen
from server.domain.verbs import Verb, after
from server.ports import Clock, Store
from server.services import audit
from server.services.commands import Ask
from server.services.devices_asked import DevicesAsked
from server.services.job_view import has_failed
from server.services.steering import check_lives, find


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """Devices that will try again, and those that did not answer and stay failed."""

    accepted: tuple[str, ...]
    unanswered: tuple[str, ...]


class Retrying:
    """Carries out `retry`."""

    def __init__(self, store: Store, asked: DevicesAsked, *, clock: Clock) -> None:
        self._store = store
        self._asked = asked
        self._clock = clock

    def retry(self, job_id: str) -> Retried:
        """Tell every failed device of the job to try once more.

        Raises PolicyError `unknown-update`, or `wrong-state` where the job is recalled, replaced or expired, or nothing
        failed.
        """
        with self._store.read() as reads:
            job, rollout = find(reads, job_id)
            after(rollout.state, Verb.RETRY)
            check_lives(rollout, self._clock.now_s())
            if job.superseded:
                raise PolicyError("wrong-state", f"{job_id} was replaced by a newer update of {rollout.package}")
            failed = [attempt for attempt in reads.attempts(job_id) if has_failed(rollout, attempt)]
        if not failed:
            raise PolicyError("wrong-state", f"no device has failed {job_id}: there is nothing to retry")
        answers = self._asked.many([attempt.device for attempt in failed], Ask(name="retry", package=rollout.package))
        accepted = {device for device, answer in answers.items() if isinstance(answer, Reply)}
        self._clear(job_id, [attempt for attempt in failed if attempt.device in accepted])
        return Retried(
            accepted=tuple(sorted(accepted)),
            unanswered=tuple(sorted(device for device in answers if device not in accepted)),
        )

    def _clear(self, job_id: str, attempts: Sequence[AttemptSeen]) -> None:
        """Let the attempts count as untried, unless the device has reported something newer meanwhile."""
        now_s = self._clock.now_s()
        with self._store.begin() as work:
            fresh = [
                replace(attempt, stage="idle", outcome=None, code=None, detail="told to retry", at_s=now_s)
                for attempt in attempts
                if work.attempt(job_id, attempt.device) == attempt
            ]
            work.put_attempts(fresh)
            names = ", ".join(sorted(attempt.device for attempt in attempts)) or "no device answered"
            audit.record(work, now_s, who=audit.OPERATOR, verb=Verb.RETRY, subject=job_id, detail=names)
