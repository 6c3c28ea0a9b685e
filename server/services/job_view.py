"""What people are shown of an update: the operator's request, how far it is, and why."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from server.domain.evidence import Word, word
from server.domain.fleet import AttemptSeen, Device
from server.domain.job import Job
from server.domain.rollout import FailureSeen, Rollout
from server.ports import Reads
from server.services.selection import Census, Selection, sizes

FAILURES_MOST: Final = 20
Place = Word | Literal["in_progress", "waiting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Devices of the group by where they are with this update.

    Every selected device is committed, failed, withdrawn (ordered back, by an operator or a recall), in progress or
    waiting; `silent` says of how many of the last two nothing was heard for the policy's `silence_s`.
    """

    devices: int
    selected: int
    committed: int
    failed: int
    withdrawn: int
    in_progress: int
    silent: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One update with its evidence."""

    job: Job
    rollout: Rollout
    counts: Counts
    sizes: tuple[int, ...]
    """By wave, how many devices take part once it is open; of the later waves, as the group is now."""
    failures: tuple[FailureSeen, ...]


def view(work: Reads, job: Job, rollout: Rollout, now_s: float, classes: Collection[str] | None = None) -> JobView:
    """Count the group's devices from their own signed reports. One device, one place.

    `classes` are those that the release fits: with them, waves are sized as the engine does it.
    """
    devices = work.devices(rollout.group)
    everybody = Census.of([device.id for device in devices], job.salt, {})
    fitting = [device.id for device in devices if classes is None or device.device_class in classes]
    now = Selection.of(rollout, rollout.wave)
    attempts = {attempt.device: attempt for attempt in work.attempts(rollout.id)}
    failed = [attempt for attempt in attempts.values() if has_failed(rollout, attempt)]
    selected = [device for device in devices if now.holds(device.id, everybody.buckets[device.id])]
    places = Counter(_place(rollout, attempts.get(device.id)) for device in selected)
    unfinished = [d for d in selected if _place(rollout, attempts.get(d.id)) in ("in_progress", "waiting")]
    return JobView(
        job=job,
        rollout=rollout,
        counts=Counts(
            devices=len(devices),
            selected=len(selected),
            committed=places["committed"],
            failed=places["failed"],
            withdrawn=places["withdrawn"],
            in_progress=places["in_progress"],
            silent=sum(_is_silent(device, rollout, now_s) for device in unfinished),
            waiting=places["waiting"],
        ),
        sizes=sizes(rollout, Census.of(fitting, job.salt, everybody.buckets)),
        failures=_failures(failed),
    )


def has_failed(rollout: Rollout, attempt: AttemptSeen) -> bool:
    """Whether the attempt is a vote against the release."""
    return word(attempt.outcome, attempt.code, version=attempt.version, wanted=rollout.version) == "failed"


def _place(rollout: Rollout, attempt: AttemptSeen | None) -> Place:
    if attempt is None or attempt.version != rollout.version:
        return "waiting"
    if attempt.outcome is None:
        return "waiting" if attempt.stage == "idle" else "in_progress"
    return word(attempt.outcome, attempt.code, version=attempt.version, wanted=rollout.version) or "waiting"


def _is_silent(device: Device, rollout: Rollout, now_s: float) -> bool:
    heard_s = max(device.seen_s or 0.0, rollout.wave_opened_s or 0.0)
    return now_s - heard_s >= rollout.policy.silence_s


def _failures(attempts: Sequence[AttemptSeen]) -> tuple[FailureSeen, ...]:
    newest = sorted(attempts, key=lambda attempt: attempt.at_s, reverse=True)[:FAILURES_MOST]
    return tuple(FailureSeen(device=a.device, code=a.code or a.outcome or "", detail=a.detail) for a in newest)
