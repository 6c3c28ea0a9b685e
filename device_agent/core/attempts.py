"""How an attempt begins, goes from stage to stage, and ends."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from device_agent.core.choice import Choice
from device_agent.core.effects import Activate, Cancel, Effect, Fetch, Revert, Stage
from device_agent.core.events import Moment
from device_agent.core.history import BY_OPERATOR, TRANSIENT, forget, next_number, refuse_release, remember
from device_agent.core.record import Attempt, Failure, Purpose, Record, SlotContent
from device_agent.core.reports import Move, attacked, blames_peer, describe, report
from device_agent.core.slots import slots_of, with_active, with_content, with_standing
from device_agent.core.tidying import tidying, uncommitted, untidy
from fleet_protocol import messages
from fleet_protocol.messages import Outcome

BEFORE_SWITCH: Final = frozenset({"downloading", "installing"})
"""Stages in which the attempt has touched nothing that runs, so that it may be given up at no cost."""
_WENT_BACK: Final[Mapping[Purpose, Outcome]] = {"install": "rolled_back", "recall": "failed", "rollback": "committed"}
"""What an attempt that failed from the switch on means for its deployment, by what the attempt was for."""
_DOING: Final = {
    "idle": "",
    "downloading": "downloading",
    "installing": "installing",
    "switching": "switching to",
    "probation": "on probation:",
    "rolling_back": "going back from",
}


def attempt_of(record: Record) -> Attempt:
    """The attempt, which every stage but idle has: the machine lets no event through without it."""
    if record.attempt is None:
        raise AssertionError(f"stage {record.stage} without an attempt")
    return record.attempt


def begin(record: Record, choice: Choice, at: Moment) -> Move:
    """R5: the attempt that was chosen; one whose release the other slot holds switches at once."""
    slots = slots_of(record, choice.release.package)
    attempt = Attempt(
        deployment=choice.deployment,
        release=choice.release,
        purpose=choice.purpose,
        number=next_number(record, choice.deployment),
        slot=slots.spare,
        previous=slots.active,
        probation_s=choice.probation_s,
        tree=choice.tree,
        command=choice.command,
        irreversible=choice.irreversible,
    )
    left = tidying(record, choice.release.package)
    waiting = {package: c for package, c in record.rollbacks.items() if package != choice.release.package}
    record = replace(record, attempt=attempt, rollbacks=waiting, retries=0)
    if choice.tree is not None:
        return enter(record, "switching", at, *left, Activate())
    return enter(record, "downloading", at, *left, Fetch())


def enter(record: Record, stage: messages.Stage, at: Moment, *effects: Effect) -> Move:
    """The attempt in its next stage, which is reported; counters that belong to a stage begin anew."""
    attempt = attempt_of(record)
    record = replace(record, stage=stage, attempt=replace(attempt, resumes=0), retries=0, wake_s=None, check_s=None)
    record, reports = report(replace(record, why=doing(record)), at)
    return record, (*reports, *effects)


def doing(record: Record) -> str:
    """What the attempt in progress is at, for people."""
    attempt = attempt_of(record)
    reason = f" ({attempt.code}: {attempt.detail})" if attempt.code else ""
    return f"{_DOING[record.stage]} {attempt.release.package} {attempt.release.version}{reason}".strip()[:1_000]


def stage(record: Record, at: Moment) -> Move:
    """R9: before the spare slot is written, the record forgets what it held."""
    attempt = attempt_of(record)
    record = with_content(record, attempt.release.package, attempt.slot, None)
    return enter(record, "installing", at, Stage())


def switch(record: Record, tree: str, at: Moment) -> Move:
    """R10: the slot's content, re-hashed, may become active."""
    attempt = replace(attempt_of(record), tree=tree)
    content = SlotContent(release=attempt.release, deployment=attempt.deployment, tree=tree, standing="unknown")
    record = with_content(record, attempt.release.package, attempt.slot, content)
    return enter(replace(record, attempt=attempt), "switching", at, Activate())


def abandon(record: Record, at: Moment, code: str | None, detail: str) -> Move:
    """R7: an attempt that has not switched ends without a failure; it may begin again."""
    record = _clear(record)
    record, reports = settle(record, at, "abandoned", code, detail)
    return record, (Cancel(), *reports, *tidying(record))


def fail(record: Record, at: Moment, code: str, detail: str) -> Move:
    """R12: an attempt that has not switched has failed, and is remembered."""
    attempt = attempt_of(record)
    recall = attempt.purpose == "recall"
    again = recall or code in TRANSIENT
    record = _clear(remember(record, at, attempt.deployment, code, detail, again=again, recall=recall))
    record, reports = settle(record, at, "failed", code, detail, attack=_attack(code))
    return record, (*reports, *tidying(record))


def turn_back(record: Record, at: Moment, code: str, detail: str, *, attack: str | None = None) -> Move:
    """R13: an attempt that may have switched goes back to where it came from."""
    attempt = replace(attempt_of(record), code=code, detail=detail)
    record = replace(record, attempt=attempt, probation_until_s=None)
    record, effects = enter(record, "rolling_back", at, Revert())
    if attack is not None:
        record, more = report(attacked(record, attack), at, attack=attack)
        effects = (*more, *effects)
    return record, (Cancel(), *effects)


def went_back(record: Record, at: Moment, *, given_up: bool = False) -> Move:
    """R13: the previous slot runs again; what failed is dropped and remembered.

    Where an operator's rollback failed, what runs again is the deployment that it would have left. Where it is
    `given_up` (R14), some of it may not run: what was kept for the way back is of no more use.
    """
    attempt = attempt_of(record)
    package = attempt.release.package
    code, detail = attempt.code or "interrupted", attempt.detail
    record = with_content(_remember_end(record, at, code, detail), package, attempt.slot, None)
    record = untidy(uncommitted(record, package) if given_up else record, package)
    record, reports = settle(record, at, _WENT_BACK[attempt.purpose], code, detail)
    return record, (*reports, *tidying(record))


def stay(record: Record, at: Moment, code: str, detail: str) -> Move:
    """R14: there is nothing whole to go back to, so that the attempt's slot stays active, known to be bad.

    It is committed, for all that a boot needs; what was kept for the way back leads nowhere.
    """
    attempt = attempt_of(record)
    package = attempt.release.package
    record = with_active(_remember_end(record, at, code, detail), package, attempt.slot)
    record = with_standing(record, package, attempt.slot, "bad")
    if attempt.previous is not None:
        record = with_standing(record, package, attempt.previous, "bad")
    record, reports = settle(uncommitted(record, package), at, "failed", code, detail, attack=_attack(code))
    return record, (*reports, *tidying(record))


def commit(record: Record, at: Moment) -> Move:
    """R18: the attempt's slot is what the device runs from now on."""
    attempt = attempt_of(record)
    package = attempt.release.package
    record = with_standing(uncommitted(record, package), package, attempt.slot, "good")
    if attempt.purpose == "install":
        record = forget(with_active(record, package, attempt.slot), attempt.deployment)
        record, reports = settle(record, at, "committed", None, "")
        return record, (*reports, *tidying(record, package))
    return _commit_return(record, at, attempt)


def settle(
    record: Record, at: Moment, outcome: Outcome, code: str | None, detail: str, *, attack: str | None = None
) -> Move:
    """The end of every attempt: idle, its outcome reported, and a tick asked for at once to choose again."""
    attempt = attempt_of(record)
    about = describe(record, attempt, outcome, code, detail)
    subject = about if outcome == "committed" else attempt.release
    if attack is not None:
        record = attacked(record, attack)
    record = replace(
        record,
        stage="idle",
        attempt=None,
        retries=0,
        unhealthy=0,
        healthy=0,
        probation_until_s=None,
        check_s=None,
        wake_s=at.mono_s,
        why=f"{subject.package} {subject.version}: {outcome.replace('_', ' ')}",
    )
    return report(record, at, about, attack)


def _commit_return(record: Record, at: Moment, attempt: Attempt) -> Move:
    """A recall or an operator's rollback has succeeded: what was left is dropped, and does not come back."""
    package = attempt.release.package
    left = slots_of(record, package).content(attempt.previous)
    code, detail = ("withdrawn", "recalled") if attempt.purpose == "recall" else (None, BY_OPERATOR)
    record, effects = settle(record, at, "rolled_back", code, detail)
    failure = Failure(number=attempt.number, code="withdrawn", detail=detail)
    record = replace(record, failures={**record.failures, attempt.deployment: failure})
    if left is not None:
        record = refuse_release(record, package, left.release.counter, failure)
    record = with_active(record, package, attempt.slot)
    if attempt.previous is not None:
        record = untidy(with_content(record, package, attempt.previous, None), package)
    return record, (*effects, *tidying(record, package))


def _remember_end(record: Record, at: Moment, code: str, detail: str) -> Record:
    """An operator's rollback that failed says nothing against the deployment that it would have left."""
    attempt = attempt_of(record)
    if attempt.purpose == "rollback":
        return record
    recall = attempt.purpose == "recall"
    again = recall or (attempt.code or code) in TRANSIENT
    return remember(record, at, attempt.deployment, code, detail, again=again, recall=recall)


def _clear(record: Record) -> Record:
    """Space is to be given back; a slot that has not been written yet keeps what it holds."""
    return untidy(record, attempt_of(record).release.package)


def _attack(code: str) -> str | None:
    return code if blames_peer(code) else None
