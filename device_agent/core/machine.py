"""The device machine: `step(record, event) -> (record, effects)`. The shell persists the record, then acts.

The rules. Tests cite their numbers; `docs/invariants.md` says what follows from them.

R1.  One attempt at a time. Fetch, Stage, Activate, Check and Revert are asked for only while no other of them is under
     way; a Cancel ends the one that is. The record that comes with an effect already says what the effect is for.
R2.  An event that names another deployment than the attempt's, or that its stage does not expect, changes nothing.
R3.  A plan is obeyed if it is this group's and its sequence is not below the one obeyed; the same sequence with other
     bytes is not. The obeyed sequence never falls within a group.
R4.  Another group is another sequence space: the plan is dropped, the obeyed sequence begins at 0, an attempt that has
     not switched is abandoned, one that has goes on to its end.
R5.  Choice: a recall of what is installed, then an operator's rollback, then per package the deployment with the
     highest counter that is active, unrefused, meant for this device, due, and not failed before. No plan, or an
     expired one, installs and recalls nothing.
R6.  A lower counter is installed only by a recall or an operator's rollback, and never one below the catalogue's floor.
R7.  Before the switch, an attempt is abandoned as soon as the plan no longer wants it: held, recalled, refused, gone,
     changed, superseded, expired, or in the way of a recall. It is looked at again at each plan, before the download,
     before the installation and before the switch.
R8.  From the switch on, an attempt goes on to its end; only the recall of its deployment or an operator turns it back.
R9.  The slot that is written is never the active one, and the record forgets what it held before it is written.
R10. Only a slot whose content was hashed is switched to: staged by this attempt, or good since it was committed.
R11. Transport failures of a download are retried with growing, jittered pauses, for ever, and spend no attempt. No
     pause of the machine's own, here and in R14 and R17, is longer than the device's owner allows.
R12. Every other failure before the switch ends the attempt: outcome `failed`, space given back, remembered.
R13. Every failure from the switch on turns the attempt back; once the old slot runs again the outcome is `rolled_back`
     (`failed`, where the attempt was a recall), and it is remembered. An operator's rollback that failed leaves its
     deployment `committed` as before, with the code: it says nothing against the release.
R14. Going back that fails is tried again with growing pauses, for the device must end in a known state. A release that
     will not start is given REVERTS tries over some minutes, then counts as gone back to. If what to go back to is not
     whole, which is found out before anything is touched, the device stays with what it switched to, known to be bad.
R15. Probation: checks at the release's interval, or the owner's where that is longer; committed once the time is over,
     one check has passed and none fails now. Too many failures in a row, or one crash, turn the attempt back.
R16. Every probation ends: a check that cannot be made or does not answer is a failed check.
R17. A deployment that failed is not tried again until an operator says so, unless its code is transient; then it is
     tried again, up to TRIES attempts. Recalls are always tried TRIES times, whatever became of what they recall. So
     attempts are bounded.
R18. The commit is the journal's write to idle; tidying comes after it. An installation keeps the old slot as good; a
     recall or rollback drops what it left, and no deployment of the same plan brings that back.
R19. At a start each stage leads where RESUME says, and an unknown one back. More than RESUMES starts in one stage are
     its failure; a download may be resumed without end.
R20. A command is carried out once, answered always, and reported.
R21. Reports: at a start, a new plan, a new group, each stage, each outcome, a refusal, a command. Their counter
     strictly rises; they wait in the record until they are in the outbox, and are asked for again at each start.
R22. A document or artifact that somebody should not have sent is counted under its code, and reported as an attack.
R23. A deployment of exactly what is installed is adopted: reported as committed without an attempt, once.
R24. Everything remembered is bounded.
R25. The machine is sent a Tick at `wake_s`. A Tick that finds nothing due changes nothing.
R26. A release with a driver that is not built for the kernel that runs is not begun, and is given up before the switch;
     a recall does not go back to one.
R27. An attempt says whether the operator accepts that there is no way back. A deployment that failed for want of a way
     back is tried again once the operator does.
R28. Tidying that is not known to have ended is asked for again: at a start, when an attempt at its package begins,
     and after each Cancel, which may have ended it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from device_agent.core.attempts import BEFORE_SWITCH, attempt_of, doing, fail, stage, stay, switch, turn_back, went_back
from device_agent.core.backoff import FIRST_S, delay_s
from device_agent.core.commands import command
from device_agent.core.effects import Cancel, Effect, Fetch, Reply, Report, Revert
from device_agent.core.events import (
    Accepted,
    Activated,
    Assigned,
    Checked,
    Commanded,
    Event,
    Failed,
    Fetched,
    Refused,
    ReportQueued,
    Reverted,
    Staged,
    Started,
    Ticked,
    Tidied,
)
from device_agent.core.idle import look
from device_agent.core.manifests import accepted, assigned, reconsider
from device_agent.core.probation import begin_probation, tick, unwell, well
from device_agent.core.record import PendingReport, Record
from device_agent.core.reports import Move, attacked, blames_peer, clean, known, queued, report
from device_agent.core.resume import RESUME, UNKNOWN, started
from device_agent.core.tidying import tidied
from fleet_protocol.errors import CODES, Fault
from fleet_protocol.messages import Stage

REVERTS: Final = 5
"""Tries at starting the release that a device goes back to."""
START_FIRST_S: Final = 20.0
"""The first pause between two of them: what it needs may come up only minutes after a boot."""
_NOT_WHOLE: Final = frozenset({"altered", "no-fallback", "unsupported"})

Handler = Callable[[Record, Any], Move]


@dataclass(frozen=True, slots=True)
class Rule:
    """What one event does in one stage, and the stages in which the device may then be."""

    handle: Handler
    to: frozenset[Stage]


def initial(device: str) -> Record:
    """The record of a device that was never started."""
    return Record(device=device, why="no group yet")


def step(record: Record, event: Event) -> Move:
    """The next record and what to do, in this order: cancel, report, answer, work. Pure; equal arguments, equal result.

    The shell persists the record before it acts; it may act twice, and it may die before it acts.
    """
    rules = TRANSITIONS.get(record.stage, _UNKNOWN_STAGE)
    if not isinstance(event, Started) and _stale(record, event):
        return record, ()
    after, effects = rules[type(event)].handle(record, event)
    return after, tuple(sorted(effects, key=_place))


def _stale(record: Record, event: Event) -> bool:
    """R2."""
    named = getattr(event, "deployment", None)
    if record.attempt is None:
        return named is not None or record.stage != "idle"
    return named is not None and named != record.attempt.deployment


def _place(effect: Effect) -> int:
    order: tuple[type[Effect], ...] = (Cancel, Report, Reply)
    return next((place for place, kind in enumerate(order) if isinstance(effect, kind)), len(order))


def _ignored(record: Record, _event: Event) -> Move:
    """R2."""
    return record, ()


def _refused(record: Record, event: Refused) -> Move:
    """R22: under a flood one report waits per code, and the counter says how often."""
    code = known(event.code, "schema")
    record = attacked(record, code)
    if any(pending.attack == code and not _is_end(pending) for pending in record.pending):
        return record, ()
    return report(record, event.at, attack=code)


def _is_end(pending: PendingReport) -> bool:
    """Whether the report says how an attempt ended, which is not said again."""
    return pending.attempt is not None and pending.attempt.outcome is not None


def _report_queued(record: Record, event: ReportQueued) -> Move:
    return queued(record, event.counter), ()


def _tidied(record: Record, event: Tidied) -> Move:
    """R28."""
    return tidied(record, event.package, event.op), ()


def _look(record: Record, event: Ticked) -> Move:
    return look(record, event.at)


def _fetch_again(record: Record, event: Ticked) -> Move:
    """R11: the pause is over."""
    if not _due(record, event):
        return record, ()
    record, effects = reconsider(replace(record, wake_s=None), event.at)
    if record.stage != "downloading":
        return record, effects
    return replace(record, why=doing(record)), (Fetch(),)


def _fetched(record: Record, event: Fetched) -> Move:
    """R7 and R9."""
    record, effects = reconsider(record, event.at)
    return (record, effects) if record.stage == "idle" else stage(record, event.at)


def _staged(record: Record, event: Staged) -> Move:
    """R7 and R10."""
    record, effects = reconsider(record, event.at)
    return (record, effects) if record.stage == "idle" else switch(record, event.tree, event.at)


def _activated(record: Record, event: Activated) -> Move:
    return begin_probation(record, attempt_of(record), event.at)


def _tick_probation(record: Record, event: Ticked) -> Move:
    return tick(record, attempt_of(record), event.at)


def _checked(record: Record, event: Checked) -> Move:
    """R15: an answer that nobody waits for is stale."""
    if record.check_s is not None:
        return record, ()
    if event.code is None:
        return well(record, attempt_of(record), event.at)
    if event.code == "crashed":
        return turn_back(record, event.at, "crashed", clean(event.detail))
    return unwell(record, attempt_of(record), event.at, clean(event.detail))


def _check_failed(record: Record, event: Failed) -> Move:
    """R16."""
    if record.check_s is not None:
        return record, ()
    return unwell(record, attempt_of(record), event.at, f"{known(event.code, 'worker')}: {clean(event.detail)}")


def _download_failed(record: Record, event: Failed) -> Move:
    """R11 and R12."""
    if record.wake_s is not None:
        return record, ()
    code = known(event.code, "worker")
    if CODES[code].fault is not Fault.TRANSPORT:
        return _failed(record, event)
    retries = record.retries + 1
    pause_s = delay_s(retries, event.at.luck, event.retry_after_s, most_s=record.pauses.retry_most_s)
    why = f"{doing(record)}: {code}, trying again in {pause_s:.0f} s"
    return replace(record, retries=retries, wake_s=event.at.mono_s + pause_s, why=why), ()


def _failed(record: Record, event: Failed) -> Move:
    return fail(record, event.at, known(event.code, "worker"), clean(event.detail))


def _switch_failed(record: Record, event: Failed) -> Move:
    """R13."""
    code = known(event.code, "worker")
    return turn_back(record, event.at, code, clean(event.detail), attack=code if blames_peer(code) else None)


def _reverted(record: Record, event: Reverted) -> Move:
    return went_back(record, event.at)


def _revert_failed(record: Record, event: Failed) -> Move:
    """R14."""
    if record.wake_s is not None:
        return record, ()
    code, detail = known(event.code, "worker"), clean(event.detail)
    attempt = attempt_of(record)
    if code in _NOT_WHOLE or blames_peer(code):
        return stay(record, event.at, code, detail)
    retries = record.retries + 1
    starts = attempt.starts + 1 if code == "start" else 0
    if starts >= REVERTS:
        return went_back(record, event.at, given_up=True)
    first_s = START_FIRST_S if code == "start" else FIRST_S
    pause_s = delay_s(retries, event.at.luck, event.retry_after_s, first_s=first_s, most_s=record.pauses.retry_most_s)
    why = f"{doing(record)}: {code}, trying again in {pause_s:.0f} s"
    attempt = replace(attempt, starts=starts)
    return replace(record, attempt=attempt, retries=retries, wake_s=event.at.mono_s + pause_s, why=why), ()


def _revert_again(record: Record, event: Ticked) -> Move:
    if not _due(record, event):
        return record, ()
    return replace(record, wake_s=None, why=doing(record)), (Revert(),)


def _due(record: Record, event: Ticked) -> bool:
    return record.wake_s is not None and event.at.mono_s >= record.wake_s


def _row(here: Stage, own: Mapping[type[Event], tuple[Handler, tuple[Stage, ...]]]) -> Mapping[type[Event], Rule]:
    """A stage's whole row: what all stages share, then its own; what is left is not expected there."""
    undone: tuple[Stage, ...] = ("idle",) if here in BEFORE_SWITCH else ()
    turned: tuple[Stage, ...] = ("rolling_back",) if here in ("switching", "probation") else ()
    begun: tuple[Stage, ...] = ("downloading", "switching") if here == "idle" else ()
    everywhere: dict[type[Event], tuple[Handler, tuple[Stage, ...]]] = {
        Started: (started, tuple(RESUME.get(here, UNKNOWN).to)),
        Assigned: (assigned, (here, *undone)),
        Accepted: (accepted, (here, *undone, *turned, *begun)),
        Refused: (_refused, (here,)),
        Commanded: (command, (here, *undone, *turned)),
        ReportQueued: (_report_queued, (here,)),
        Tidied: (_tidied, (here,)),
    }
    rows = dict.fromkeys(EVENTS, (_ignored, (here,))) | everywhere | dict(own)
    return {event: Rule(handle, frozenset(to)) for event, (handle, to) in rows.items()}


EVENTS: Final[tuple[type[Event], ...]] = Event.__args__

TRANSITIONS: Final[Mapping[Stage, Mapping[type[Event], Rule]]] = {
    "idle": _row("idle", {Ticked: (_look, ("idle", "downloading", "switching"))}),
    "downloading": _row(
        "downloading",
        {
            Ticked: (_fetch_again, ("downloading", "idle")),
            Fetched: (_fetched, ("installing", "idle")),
            Failed: (_download_failed, ("downloading", "idle")),
        },
    ),
    "installing": _row(
        "installing",
        {Staged: (_staged, ("switching", "idle")), Failed: (_failed, ("idle",))},
    ),
    "switching": _row(
        "switching",
        {Activated: (_activated, ("probation",)), Failed: (_switch_failed, ("rolling_back",))},
    ),
    "probation": _row(
        "probation",
        {
            Ticked: (_tick_probation, ("probation", "idle", "rolling_back")),
            Checked: (_checked, ("probation", "idle", "rolling_back")),
            Failed: (_check_failed, ("probation", "rolling_back")),
        },
    ),
    "rolling_back": _row(
        "rolling_back",
        {
            Ticked: (_revert_again, ("rolling_back",)),
            Reverted: (_reverted, ("idle",)),
            Failed: (_revert_failed, ("rolling_back", "idle")),
        },
    ),
}
"""Stage by event: the whole machine. `docs/state-device.mmd` is drawn from it."""

_UNKNOWN_STAGE: Final = dict.fromkeys(EVENTS, Rule(_ignored, frozenset())) | {
    Started: Rule(started, UNKNOWN.to | RESUME["idle"].to)
}
