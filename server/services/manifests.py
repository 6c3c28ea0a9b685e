"""Composes, signs, checks and publishes each group's manifest.

Rules, cited by number in the tests:

N1. A manifest holds the deployments of every rollout of its group that is not superseded: active and complete ones as
    `active`, held and expired ones as `held`, recalled ones as `recalled`.
N2. Every manifest that differs from the one before has a higher sequence, over the loss of the store too as far as
    server.services.sequences knows. The number is taken in the transaction that stores the document.
N3. Nothing is published that the device's own acceptance would refuse.
N4. A manifest is issued anew long before it expires.
N5. A deployment that devices would refuse, because its release or what it requires has left the catalogue, leaves the
    manifest; the others stay.
N6. A deployment whose row can not be read stays as it was published last, so that a recall of another is not held up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from loguru import logger

from fleet_protocol import envelope
from fleet_protocol.acceptance import check_deployment
from fleet_protocol.envelope import MANIFEST_TYPE, KeySet
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.limits import MANIFEST_SIZE
from fleet_protocol.manifest import Deployment, DeploymentState, Fallback, Manifest, Source
from fleet_protocol.payload import to_payload
from fleet_protocol.schema import from_payload
from fleet_protocol.timestamps import format_time
from fleet_protocol.topics import MANIFEST, Topics
from server.domain.engine import named_devices, share_of
from server.domain.fleet import Group
from server.domain.job import Job
from server.domain.rollout import Rollout, RolloutState
from server.ports import Reads
from server.services.acceptance import ListedCatalogue, accept
from server.services.catalogue import Catalogue
from server.services.catalogue_state import Contents
from server.services.keyring import Keyring
from server.services.publication import Change
from server.services.sequences import following, lowest

STATES: dict[RolloutState, DeploymentState] = {
    RolloutState.ACTIVE: "active",
    RolloutState.COMPLETE: "active",
    RolloutState.HELD: "held",
    RolloutState.RECALLED: "recalled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRules:
    """What is the same in all manifests of this server."""

    fleet: str
    life_s: float
    reissue_s: float
    """A manifest older than this is issued anew."""


class Manifests:
    """The manifests of all groups."""

    def __init__(
        self,
        catalogue: Catalogue,
        keyring: Keyring,
        topics: Topics,
        *,
        rules: ManifestRules,
        artifact_urls: Callable[[str], tuple[str, ...]],
    ) -> None:
        """`artifact_urls(sha256)` names where this server offers an artifact; empty where it does not have it."""
        self._catalogue = catalogue
        self._keyring = keyring
        self._topics = topics
        self._rules = rules
        self._artifact_urls = artifact_urls

    def reissue(self, change: Change, group_name: str, now_s: float) -> int:
        """Issue the group's manifest under the next sequence, which is returned (N1, N2, N3).

        Raises PolicyError `setup` or `keys` where nothing can be signed, `conflict` where the manifest would be too
        large, ProtocolError where a device would refuse it.
        """
        contents = self._catalogue.require()
        group = change.work.group(group_name) or Group(name=group_name)
        topic = self._topics.of(MANIFEST, group=group_name)
        sequence = following(change.work, topic, group.sequence)
        manifest = self._compose(change.work, contents, replace(group, sequence=sequence), now_s)
        document = sign_document(to_payload(manifest), MANIFEST_TYPE, contents.root.roles["deployment"], self._keyring)
        if len(document) > MANIFEST_SIZE:
            raise PolicyError(
                "conflict",
                f"the manifest of {group_name} would be larger than {MANIFEST_SIZE} bytes: name fewer devices, "
                "or complete a rollout to the whole group so that older deployments leave it",
            )
        accept(document, contents, fleet=self._rules.fleet, group=group_name, now_s=now_s)
        change.work.put_group(replace(group, sequence=manifest.sequence, issued_s=now_s))
        change.put_document(topic, document)
        return manifest.sequence

    def refresh(self, change: Change, group: Group, now_s: float) -> bool:
        """Issue the manifest anew where it is due (N4) or says something else than it should; whether it was."""
        due = self.is_due(change.work, group, now_s)
        if due or self._published(change.work, group) != self._wanted(change.work, group, now_s):
            self.reissue(change, group.name, now_s)
            return True
        return False

    def is_due(self, work: Reads, group: Group, now_s: float) -> bool:
        """Whether the manifest is too old or its sequence too low, or a deployment in it has expired since."""
        issued_s = group.issued_s
        if issued_s is None or now_s - issued_s >= self._rules.reissue_s:
            return True
        if group.sequence <= lowest(work, self._topics.of(MANIFEST, group=group.name)):
            return True
        ends_s = [_until_s(work, job_id) for job_id in work.standing_jobs(group.name)]
        return any(issued_s < end_s <= now_s for end_s in ends_s if end_s is not None)

    def _published(self, work: Reads, group: Group) -> tuple[int, tuple[Deployment, ...]] | None:
        data = work.document(self._topics.of(MANIFEST, group=group.name))
        if data is None:
            return None
        try:
            payload = envelope.decode(data, max_size=MANIFEST_SIZE).payload
            manifest = from_payload(Manifest, payload, max_size=MANIFEST_SIZE)
        except ProtocolError as error:
            logger.warning("the stored manifest of {} is not readable ({}): it is issued anew", group.name, error)
            return None
        return manifest.root, manifest.deployments

    def _wanted(self, work: Reads, group: Group, now_s: float) -> tuple[int, tuple[Deployment, ...]]:
        contents = self._catalogue.require()
        manifest = self._compose(work, contents, replace(group, sequence=max(group.sequence, 1)), now_s)
        return manifest.root, manifest.deployments

    def deployment(self, contents: Contents, job: Job, rollout: Rollout, now_s: float) -> Deployment:
        """What the manifest says about one rollout; raises ProtocolError where devices would refuse it (N3)."""
        catalogue = ListedCatalogue.of(contents)
        deployment = replace(deployment_of(job, rollout, self._sources(job), now_s), fallback=None)
        check_deployment(deployment, catalogue)
        return replace(deployment, fallback=_live_fallback(deployment, job.fallback, catalogue))

    def _compose(self, work: Reads, contents: Contents, group: Group, now_s: float) -> Manifest:
        found = [self._standing(work, contents, job_id, group, now_s) for job_id in work.standing_jobs(group.name)]
        try:
            return Manifest(
                fleet=self._rules.fleet,
                group=group.name,
                sequence=group.sequence,
                root=contents.root.version,
                issued=format_time(now_s),
                expires=format_time(now_s + self._rules.life_s),
                deployments=tuple(deployment for deployment in found if deployment is not None),
            )
        except ProtocolError as error:
            raise PolicyError("conflict", f"the manifest of {group.name} cannot be made: {error.detail}") from None

    def _standing(self, work: Reads, contents: Contents, job_id: str, group: Group, now_s: float) -> Deployment | None:
        """One deployment of the manifest; None where it leaves it (N5, N6)."""
        try:
            job, rollout = work.job(job_id), work.rollout(job_id)
            return None if job is None or rollout is None else self.deployment(contents, job, rollout, now_s)
        except ProtocolError as error:
            logger.warning("{} leaves the manifest of {}: {}", job_id, group.name, error)
        except PolicyError as error:
            logger.error("{} stays in the manifest of {} as it was: {}", job_id, group.name, error)
            return self._as_published(work, contents, job_id, group)
        return None

    def _as_published(self, work: Reads, contents: Contents, job_id: str, group: Group) -> Deployment | None:
        _, before = self._published(work, group) or (0, ())
        deployment = next((each for each in before if each.id == job_id), None)
        if deployment is None:
            return None
        try:
            check_deployment(deployment, ListedCatalogue.of(contents))
        except ProtocolError:
            return None
        return deployment

    def _sources(self, job: Job) -> tuple[Source, ...]:
        """The operator's addresses first, then this server's own copies of the release and of its fallback."""
        digests = [target.sha256 for target in (*job.targets, *(job.fallback.targets if job.fallback else ()))]
        own = [Source(sha256=sha256, url=url) for sha256 in digests for url in self._artifact_urls(sha256)]
        return (*job.sources, *(source for source in dict.fromkeys(own) if source not in job.sources))


def current_deployments(work: Reads, group: str) -> list[tuple[Job, Rollout]]:
    """Jobs of the group that are not superseded, with their rollouts, oldest first."""
    pairs = [(work.job(job_id), work.rollout(job_id)) for job_id in work.standing_jobs(group)]
    return [(job, rollout) for job, rollout in pairs if job is not None and rollout is not None]


def _until_s(work: Reads, job_id: str) -> float | None:
    """When a deployment expires; None where it never does, or where nobody can tell (N6)."""
    try:
        rollout = work.rollout(job_id)
    except PolicyError:
        return None
    return None if rollout is None else rollout.policy.until_s


def deployment_of(job: Job, rollout: Rollout, sources: Sequence[Source], now_s: float) -> Deployment:
    """The rollout in the manifest's words; nothing is checked against the catalogue."""
    state = STATES[rollout.state]
    return Deployment(
        id=rollout.id,
        package=rollout.package,
        version=rollout.version,
        counter=rollout.counter,
        targets=job.targets,
        state="held" if state == "active" and rollout.has_expired(now_s) else state,
        share_bp=share_of(rollout),
        salt=job.salt,
        devices=tuple(dict.fromkeys(named_devices(rollout))),
        fallback=job.fallback,
        not_before=job.not_before,
        window=job.window,
        probation_s=rollout.policy.probation_s,
        sources=tuple(sources),
        irreversible=rollout.policy.irreversible,
    )


def _live_fallback(deployment: Deployment, fallback: Fallback | None, catalogue: ListedCatalogue) -> Fallback | None:
    """The fallback as far as the catalogue still allows it: whole, only from the other slot, or not at all."""
    if fallback is None:
        return None
    for offered in (fallback, replace(fallback, targets=())):
        try:
            check_deployment(replace(deployment, fallback=offered), catalogue)
        except ProtocolError:
            continue
        return offered
    return None


def sign_document(payload: bytes, payload_type: str, role: KeySet, keyring: Keyring) -> bytes:
    """The payload in an envelope signed by the deployment role."""
    return envelope.sign(payload, payload_type, keyring.signers(role, "deployment")).encode()
