"""What assignments and manifests change (rules R3, R4, R7, R8 and R22)."""

from dataclasses import replace

from device_agent.core.attempts import BEFORE_SWITCH, abandon, turn_back
from device_agent.core.choice import same_bytes, takes_part, unwanted
from device_agent.core.effects import Effect
from device_agent.core.events import Accepted, Assigned, Moment
from device_agent.core.history import deployments, next_number
from device_agent.core.idle import look
from device_agent.core.plan import Plan, PlannedDeployment
from device_agent.core.record import Record
from device_agent.core.reports import Move, attacked, blames_peer, known, report
from fleet_protocol.messages import AttemptReport


def assigned(record: Record, event: Assigned) -> Move:
    """R4: another group is another sequence space, and nothing of the old group's plan holds in it."""
    if event.group == record.group:
        return record, ()
    effects: tuple[Effect, ...] = ()
    if record.stage in BEFORE_SWITCH:
        record, effects = abandon(record, event.at, None, f"moved to group {event.group}")
    record = replace(record, group=event.group, plan=None, obeyed=0, adopted=())
    if record.stage == "idle":
        record = replace(record, why="no manifest yet", wake_s=None)
    record, reports = report(record, event.at)
    return record, (*effects, *reports)


def accepted(record: Record, event: Accepted) -> Move:
    """R3: obey the plan, unless it is another group's or older than the one obeyed."""
    plan, at = event.plan, event.at
    if not _obeyable(record, plan) or plan == record.plan:
        return record, ()
    counter = record.report_counter
    newer = plan.sequence > record.obeyed
    refused = _newly_refused(record, plan)
    planned = {deployment.id for deployment in plan.deployments}
    adopted = tuple(name for name in record.adopted if name in planned)
    record = replace(record, plan=plan, obeyed=plan.sequence, adopted=adopted)
    record, refusals = _report_refusals(record, refused, at)
    record, effects = act_on_plan(record, at)
    if newer and record.report_counter == counter:
        record, more = report(record, at)
        effects = (*more, *effects)
    return record, (*refusals, *effects)


def act_on_plan(record: Record, at: Moment) -> Move:
    """What the plan means for the stage at hand."""
    if record.stage == "idle":
        return look(record, at)
    if record.stage in BEFORE_SWITCH:
        return reconsider(record, at)
    if record.stage in ("switching", "probation"):
        return _withdraw(record, at)
    return record, ()


def reconsider(record: Record, at: Moment) -> Move:
    """R7: give up an attempt that the plan no longer wants; one that it wants learns of new mirrors."""
    attempt = record.attempt
    if attempt is None:
        return record, ()
    reason = unwanted(record, attempt, at)
    if reason is not None:
        return abandon(record, at, *reason)
    planned = next(d for d in deployments(record) if d.id == attempt.deployment)
    release = planned.fallback if attempt.purpose == "recall" else planned.release
    if release is None or not same_bytes(release, attempt.release):
        return record, ()
    return replace(record, attempt=replace(attempt, release=release)), ()


def _withdraw(record: Record, at: Moment) -> Move:
    """R8: from switching on only the recall of its own deployment turns an installation back."""
    attempt = record.attempt
    recalled = {deployment.id for deployment in deployments(record) if deployment.state == "recalled"}
    if attempt is None or attempt.purpose != "install" or attempt.deployment not in recalled:
        return record, ()
    return turn_back(record, at, "withdrawn", "recalled")


def _obeyable(record: Record, plan: Plan) -> bool:
    if plan.group != record.group or plan.sequence < record.obeyed:
        return False
    other = record.plan is not None and plan.sequence == record.plan.sequence and plan.digest != record.plan.digest
    return not other


def _newly_refused(record: Record, plan: Plan) -> list[PlannedDeployment]:
    """Deployments that ask for this device, and for what it may not install, where the last plan did not yet."""
    before = {d.id: d.refusal for d in deployments(record) if _asks(record, d)}
    return [d for d in plan.deployments if _asks(record, d) and d.refusal != before.get(d.id)]


def _asks(record: Record, deployment: PlannedDeployment) -> bool:
    return deployment.state == "active" and deployment.refusal is not None and takes_part(record, deployment)


def _report_refusals(record: Record, refused: list[PlannedDeployment], at: Moment) -> Move:
    effects: tuple[Effect, ...] = ()
    for deployment in refused:
        code = known(deployment.refusal or "schema", "schema")
        attack = code if blames_peer(code) else None
        record = record if attack is None else attacked(record, attack)
        record, reports = report(record, at, _refused(record, deployment, code), attack)
        effects = (*effects, *reports)
    return record, effects


def _refused(record: Record, deployment: PlannedDeployment, code: str) -> AttemptReport:
    return AttemptReport(
        deployment=deployment.id,
        package=deployment.release.package,
        version=deployment.release.version,
        counter=deployment.release.counter,
        number=next_number(record, deployment.id),
        stage="idle",
        outcome="refused",
        code=code,
        detail="",
    )
