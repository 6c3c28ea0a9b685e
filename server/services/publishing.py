"""Turns an operator's request into a job, a rollout and the group's next manifest.

Rules, cited by number in the tests:

U1. Only a release of the verified catalogue can be published, and only what devices of the group would accept.
U2. Devices asked for by name are enrolled and belong to one group.
U3. A counter is above that of every deployment that the same devices may already hold or be offered; going back is
    done by a recall. The same release may be published again, to others too, unless it is being rolled out: who has it
    says so, and the others get it. What becomes of its deployments before says server.services.succession (Y2).
U4. One rollout of a package advances in a group at a time.
U5. `update_id` makes a request idempotent: the same again returns the job, another under the same id is a conflict.
U6. Either everything is stored and published, or nothing.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.manifest import Fallback
from server.domain.fleet import Device
from server.domain.job import Job, UpdateType
from server.domain.rollout import Policy, Rollout, RolloutState
from server.ports import Clock, Reads
from server.services import audit
from server.services.artifacts import Artifacts
from server.services.audience import Audience
from server.services.catalogue import Catalogue
from server.services.catalogue_state import Contents, Release
from server.services.manifests import Manifests, current_deployments
from server.services.publication import Publication
from server.services.succession import supersede
from server.services.update_request import UpdateRequest

_LIVE = (RolloutState.ACTIVE, RolloutState.HELD, RolloutState.COMPLETE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A request with everything looked up."""

    group: str
    release: Release
    policy: Policy


class Publishing:
    """Creates updates."""

    def __init__(
        self,
        publication: Publication,
        catalogue: Catalogue,
        manifests: Manifests,
        artifacts: Artifacts,
        *,
        clock: Clock,
    ) -> None:
        self._publication = publication
        self._catalogue = catalogue
        self._manifests = manifests
        self._artifacts = artifacts
        self._clock = clock

    def create(self, request: UpdateRequest) -> tuple[str, bool]:
        """The job's id, and whether this request made it (U1 to U6).

        Raises PolicyError with `unknown-release`, `unknown-node`, `unknown-group`, `unknown-artifact`, `conflict`,
        `bad-request` or `setup`; ProtocolError with the code under which devices would refuse the release.
        """
        now_s = self._clock.now_s()
        with self._publication.begin() as change:
            plan = self._plan(change.work, request, now_s)
            if request.update_id is not None and self._is_known(change.work, request, plan):
                return request.update_id, False
            contents = self._catalogue.require()
            self._check_may_start(change.work, request, plan, contents)
            job = self._job(change.work, request, plan, now_s)
            rollout = self._rollout(job.id, plan)
            self._manifests.deployment(contents, job, rollout, now_s)
            change.work.put_job(job)
            change.work.put_rollout(rollout)
            supersede(change, rollout)
            self._manifests.reissue(change, plan.group, now_s)
            detail = f"{rollout.package} {rollout.version} to {_audience_text(plan)}"
            audit.record(change.work, now_s, who=audit.OPERATOR, verb="publish", subject=job.id, detail=detail)
            return job.id, True

    def _plan(self, work: Reads, request: UpdateRequest, now_s: float) -> _Plan:
        release = self._catalogue.release(request.package_name, request.package_version)
        if request.update_type not in (None, *release.kinds):
            kinds = ", ".join(release.kinds)
            raise PolicyError(
                "bad-request", f"{release.package} {release.version} is of kind {kinds}, not {request.update_type}"
            )
        return _Plan(group=_group_of(work, request), release=release, policy=request.policy(now_s))

    def _is_known(self, work: Reads, request: UpdateRequest, plan: _Plan) -> bool:
        """Rule U5."""
        job, rollout = work.job(request.update_id or ""), work.rollout(request.update_id or "")
        if job is None or rollout is None:
            return False
        asked = self._job(work, request, plan, job.created_s)
        same_job = all(getattr(job, name) == getattr(asked, name) for name in _COMPARED)
        told = (rollout.group, rollout.package, rollout.version, rollout.policy)
        policy = request.policy(job.created_s)
        if not same_job or told != (plan.group, plan.release.package, plan.release.version, policy):
            raise PolicyError("conflict", f"update {job.id} exists already and asks for something else")
        return True

    def _check_may_start(self, work: Reads, request: UpdateRequest, plan: _Plan, contents: Contents) -> None:
        release, devices = plan.release, work.devices(plan.group)
        if release.counter < contents.floors.get(release.package, 0):
            raise ProtocolError("floor", f"{release.package} {release.version} is below the catalogue's floor")
        _check_members(devices, plan)
        _check_classes(devices, plan)
        self._check_available(request, release)
        audience = Audience.of(plan.policy)
        for job, rollout in current_deployments(work, plan.group):
            if rollout.package != release.package or rollout.state not in _LIVE:
                continue
            if rollout.state is RolloutState.ACTIVE:
                raise PolicyError(
                    "conflict",
                    f"{rollout.package} {rollout.version} is being rolled out to {plan.group} by {job.id}: "
                    "wait for it, hold it or recall it first",
                )
            again = rollout.counter == release.counter and set(job.targets) == set(release.targets)
            if rollout.counter >= release.counter and not again and audience.meets(Audience.of(rollout.policy)):
                raise PolicyError(
                    "conflict",
                    f"counter {release.counter} is not above counter {rollout.counter} of {job.id} "
                    f"({rollout.package} {rollout.version}): to go back, recall {job.id}",
                )

    def _check_available(self, request: UpdateRequest, release: Release) -> None:
        if request.package_url:
            return
        for target in release.targets:
            if self._artifacts.size(target.sha256) != target.length:
                raise PolicyError(
                    "unknown-artifact",
                    f"{target.path} is not stored here: PUT /api/artifacts/{target.sha256}, or give package_url",
                )

    def _job(self, work: Reads, request: UpdateRequest, plan: _Plan, now_s: float) -> Job:
        return Job(
            id=request.update_id or f"d-{secrets.token_hex(8)}",
            update_type=request.update_type or cast(UpdateType, plan.release.kinds[0]),
            description=request.description,
            targets=plan.release.targets,
            sources=request.sources(plan.release),
            salt=secrets.token_hex(8),
            fallback=self._fallback(work, plan),
            not_before=request.not_before,
            window=request.hours(),
            created_s=now_s,
            created_by=audit.OPERATOR,
        )

    @staticmethod
    def _rollout(job_id: str, plan: _Plan) -> Rollout:
        release = plan.release
        return Rollout(
            id=job_id,
            group=plan.group,
            package=release.package,
            version=release.version,
            counter=release.counter,
            policy=plan.policy,
        )

    def _fallback(self, work: Reads, plan: _Plan) -> Fallback | None:
        """What a recalled device goes back to: the release that most of the audience runs now."""
        contents = self._catalogue.require()
        floor = contents.floors.get(plan.release.package, 0)
        lower = {
            release.counter: release
            for release in contents.releases
            if release.package == plan.release.package and floor <= release.counter < plan.release.counter
        }
        counters = [*(r.counter for r in _before(work, plan)), *_installed(work, plan, lower), *_ways_back(work, plan)]
        found = next((lower[counter] for counter in counters if counter in lower), None)
        if found is None:
            return None
        return Fallback(version=found.version, counter=found.counter, targets=found.targets)


_COMPARED = ("update_type", "description", "targets", "sources", "not_before", "window")


def _group_of(work: Reads, request: UpdateRequest) -> str:
    """Rule U2."""
    if request.group is not None:
        if work.group(request.group) is None:
            raise PolicyError("unknown-group", f"no group {request.group}: GET /api/groups lists them")
        return request.group
    names = request.target_nodes or ()
    devices = work.devices_by_id(names)
    unknown = sorted(set(names) - set(devices))
    if unknown:
        raise PolicyError("unknown-node", f"not enrolled: {', '.join(unknown[:10])}")
    groups = sorted({device.group for device in devices.values()})
    if len(groups) > 1:
        raise PolicyError(
            "bad-request", f"target_nodes are in several groups ({', '.join(groups[:10])}): make one update for each"
        )
    return groups[0]


def _check_members(devices: Sequence[Device], plan: _Plan) -> None:
    known = {device.id for device in devices}
    foreign = sorted(Audience.of(plan.policy).devices - known)
    if foreign:
        raise PolicyError("bad-request", f"not in group {plan.group}: {', '.join(foreign[:10])}")


def _check_classes(devices: Sequence[Device], plan: _Plan) -> None:
    """Nobody is asked for by name whose hardware the release does not fit, and it fits somebody."""
    fits = set(plan.release.classes)
    audience = Audience.of(plan.policy)
    named = [device for device in devices if device.id in audience.devices]
    wrong = [f"{device.id} ({device.device_class})" for device in named if device.device_class not in fits]
    reached = devices if audience.share_bp else named
    if wrong or (reached and all(device.device_class not in fits for device in reached)):
        who = ", ".join(wrong[:10]) or f"any device of {plan.group}"
        fitting = ", ".join(sorted(fits))
        raise ProtocolError("class", f"{plan.release.package} {plan.release.version} fits {fitting}, not {who}")


def _before(work: Reads, plan: _Plan) -> list[Rollout]:
    """Earlier deployments of the package to the same devices that stand, the newest first."""
    audience = Audience.of(plan.policy)
    found = [
        rollout
        for _, rollout in current_deployments(work, plan.group)
        if rollout.package == plan.release.package
        and rollout.state is RolloutState.COMPLETE
        and Audience.of(rollout.policy).covers(audience)
    ]
    return sorted(found, key=lambda rollout: rollout.counter, reverse=True)


def _installed(work: Reads, plan: _Plan, lower: dict[int, Release]) -> list[int]:
    """Counters of the package that the audience runs, the commonest first."""
    audience = Audience.of(plan.policy)
    reached = [d for d in work.devices(plan.group) if audience.share_bp or d.id in audience.devices]
    running = [item.counter for device in reached for item in device.installed if item.package == plan.release.package]
    ranked = Counter(counter for counter in running if counter in lower).most_common()
    return [counter for counter, _ in sorted(ranked, key=lambda row: (-row[1], -row[0]))]


def _ways_back(work: Reads, plan: _Plan) -> list[int]:
    """Where the deployments of the same release lead back to, the newest first: who has it may run nothing lower."""
    return [
        job.fallback.counter
        for job, rollout in reversed(current_deployments(work, plan.group))
        if (rollout.package, rollout.counter) == (plan.release.package, plan.release.counter)
        and job.fallback is not None
        and rollout.state in _LIVE
    ]


def _audience_text(plan: _Plan) -> str:
    audience = Audience.of(plan.policy)
    names = ", ".join(sorted(audience.devices)[:10])
    share = f"{audience.share_bp / 100:g} % of {plan.group} in {len(plan.policy.waves)} wave(s)"
    return share if audience.share_bp else f"{names} of {plan.group}"
