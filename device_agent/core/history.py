"""Which deployments failed here, and whether they may be tried again (rule R17)."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from device_agent.core.backoff import delay_s
from device_agent.core.events import Moment
from device_agent.core.plan import PlannedDeployment
from device_agent.core.record import Failure, Record
from fleet_protocol import limits
from fleet_protocol.errors import CODES, Fault

TRIES: Final = 3
"""Attempts at one deployment before somebody has to tell the device to try again."""
KEPT: Final = limits.DEPLOYMENTS
"""As many as a manifest can name, so that no failure that matters is ever forgotten."""
TRANSIENT: Final = frozenset(
    {"no-space", "io", "worker", "interrupted", "in-use", "locked", "no-memory"}
    | {code.name for code in CODES.values() if code.fault is Fault.TRANSPORT}
)
"""Codes that may be gone by the next try; all others say something about the release."""
RETRY_FIRST_S: Final = 60.0
BY_OPERATOR: Final = "rolled back by operator"
_NUMBER_MOST: Final = 1_000


def next_number(record: Record, deployment: str) -> int:
    """The number of the next attempt at this deployment or at its recall; 1 for the first."""
    kept = (record.failures.get(deployment), record.recalls.get(deployment))
    return min(max((failure.number for failure in kept if failure is not None), default=0) + 1, _NUMBER_MOST)


def remember(
    record: Record, at: Moment, deployment: str, code: str, detail: str, *, again: bool, recall: bool = False
) -> Record:
    """The record with one more failure of `deployment`; `again` lets it be retried by itself, up to TRIES.

    The tries of its `recall` are counted apart.
    """
    kept = record.recalls if recall else record.failures
    before = kept.get(deployment)
    tries = (0 if before is None else before.tries) + 1
    retry_s = at.mono_s + _pause_s(record, tries, at) if again and tries < TRIES else None
    number = next_number(record, deployment)
    failure = Failure(number=number, code=code, detail=detail, tries=tries, retry_s=retry_s)
    kept = _bounded(record, {**_without(kept, deployment), deployment: failure})
    return replace(record, recalls=kept) if recall else replace(record, failures=kept)


def forget(record: Record, deployment: str) -> Record:
    """The record without a failure of `deployment` or of its recall."""
    return replace(record, failures=_without(record.failures, deployment), recalls=_without(record.recalls, deployment))


def refuse_release(record: Record, package: str, counter: int, failure: Failure) -> Record:
    """The record with every deployment of the plan that would bring this release back counted as failed."""
    same = [d.id for d in deployments(record) if d.release.package == package and d.release.counter == counter]
    return replace(record, failures=_bounded(record, {**record.failures, **dict.fromkeys(same, failure)}))


def told_to_retry(record: Record, at: Moment, package: str | None) -> tuple[Record, int]:
    """The record with what failed of the plan's package (all, if None) free to be tried, and how many deployments."""
    planned = [d.id for d in deployments(record) if package in (None, d.release.package)]
    failures, recalls = (_lifted(kept, planned, at) for kept in (record.failures, record.recalls))
    told = [name for name in planned if name in record.failures or name in record.recalls]
    return replace(record, failures=failures, recalls=recalls), len(told)


def renewed(record: Record, at: Moment) -> Record:
    """The record with the retries of another boot put on this boot's clock."""
    failures, recalls = (
        {name: _renewed(record, failure, at) for name, failure in kept.items()}
        for kept in (record.failures, record.recalls)
    )
    return replace(record, failures=failures, recalls=recalls)


def blocking(kept: Mapping[str, Failure], deployment: str, at: Moment) -> Failure | None:
    """The failure for which `deployment`, or its recall, may not be tried now, if there is one."""
    failure = kept.get(deployment)
    if failure is None or (failure.retry_s is not None and at.mono_s >= failure.retry_s):
        return None
    return failure


def failed_before(failure: Failure) -> str:
    """Why a failed deployment is not tried, for people."""
    told = f" ({BY_OPERATOR})" if failure.detail == BY_OPERATOR else ""
    return f"failed before: {failure.code}{told}"


def deployments(record: Record) -> tuple[PlannedDeployment, ...]:
    """The deployments of the plan; none where there is no plan."""
    return () if record.plan is None else record.plan.deployments


def _renewed(record: Record, failure: Failure, at: Moment) -> Failure:
    if failure.retry_s is None:
        return failure
    pause_s = _pause_s(record, failure.tries, at) if failure.tries else 0.0
    return replace(failure, retry_s=at.mono_s + pause_s)


def _pause_s(record: Record, tries: int, at: Moment) -> float:
    return delay_s(tries, at.luck, first_s=RETRY_FIRST_S, most_s=record.pauses.retry_most_s)


def _lifted(kept: Mapping[str, Failure], names: Iterable[str], at: Moment) -> Mapping[str, Failure]:
    return {**kept, **{name: replace(kept[name], tries=0, retry_s=at.mono_s) for name in names if name in kept}}


def _without(kept: Mapping[str, Failure], deployment: str) -> dict[str, Failure]:
    return {name: failure for name, failure in kept.items() if name != deployment}


def _bounded(record: Record, kept: Mapping[str, Failure]) -> Mapping[str, Failure]:
    """What the plan does not name goes first, the oldest of it before the newer."""
    excess = len(kept) - KEPT
    if excess <= 0:
        return kept
    named = {deployment.id for deployment in deployments(record)}
    order = sorted(kept, key=lambda name: name in named)
    dropped = frozenset(order[:excess])
    return {name: failure for name, failure in kept.items() if name not in dropped}
