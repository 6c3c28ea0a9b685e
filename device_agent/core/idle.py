"""What happens between attempts: adopt, choose, begin, or say why not (rules R5 and R23)."""

from dataclasses import replace

from device_agent.core.attempts import begin
from device_agent.core.choice import choose, other_good, takes_part
from device_agent.core.effects import Effect
from device_agent.core.events import Moment
from device_agent.core.history import deployments
from device_agent.core.plan import PlannedDeployment
from device_agent.core.record import Record
from device_agent.core.reports import Move, report
from device_agent.core.slots import active_content, slots_of, with_content
from fleet_protocol.messages import AttemptReport


def look(record: Record, at: Moment) -> Move:
    """Begin what may begin now; else the record says why nothing does, and when to look again."""
    possible = {name: c for name, c in record.rollbacks.items() if other_good(record, name) is not None}
    record, adopted = _adopt(replace(record, rollbacks=possible), at)
    decision = choose(record, at)
    if decision.choice is None:
        return replace(record, why=decision.why, wake_s=decision.wake_s), adopted
    record, begun = begin(record, decision.choice, at)
    return record, (*adopted, *begun)


def _adopt(record: Record, at: Moment) -> Move:
    effects: tuple[Effect, ...] = ()
    for deployment in deployments(record):
        if _adoptable(record, deployment):
            record, reports = report(_adopted(record, deployment), at, _committed(deployment))
            effects = (*effects, *reports)
    return record, effects


def _adoptable(record: Record, deployment: PlannedDeployment) -> bool:
    """Whether this deployment asks for exactly what is installed and good, and has not been told so yet."""
    content = active_content(record, deployment.release.package)
    if content is None or content.standing != "good" or content.deployment == deployment.id:
        return False
    if deployment.state != "active" or deployment.refusal is not None or not takes_part(record, deployment):
        return False
    if deployment.id in record.adopted or deployment.id in record.failures:
        return False
    wanted = sorted(target.sha256 for target in deployment.release.targets)
    return (content.release.counter, sorted(target.sha256 for target in content.release.targets)) == (
        deployment.release.counter,
        wanted,
    )


def _adopted(record: Record, deployment: PlannedDeployment) -> Record:
    """From now on the release is this deployment's, so that its recall is what brings the device back."""
    package = deployment.release.package
    slots = slots_of(record, package)
    content = slots.content(slots.active)
    if slots.active is None or content is None:
        return record
    names = dict.fromkeys((*record.adopted, content.deployment, deployment.id))
    planned = {other.id for other in deployments(record)}
    record = replace(record, adopted=tuple(name for name in names if name in planned))
    return with_content(record, package, slots.active, replace(content, deployment=deployment.id))


def _committed(deployment: PlannedDeployment) -> AttemptReport:
    return AttemptReport(
        deployment=deployment.id,
        package=deployment.release.package,
        version=deployment.release.version,
        counter=deployment.release.counter,
        number=1,
        stage="idle",
        outcome="committed",
        code=None,
        detail="already installed",
    )
