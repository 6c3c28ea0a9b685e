"""A verified manifest as a plan that the machine understands."""

from collections.abc import Mapping

from device_agent.core.plan import Plan, PlannedDeployment, PlannedRelease, PlannedTarget
from fleet_protocol.acceptance import Catalogue, Match, Opened, Part, match
from fleet_protocol.manifest import Deployment, Manifest
from fleet_protocol.timestamps import parse_time


def plan(
    opened: Opened[Manifest], catalogue: Catalogue, device_class: str, *, root: int, floors: Mapping[str, int]
) -> Plan:
    """The manifest narrowed to one device class by the catalogue; refused deployments carry their code."""
    manifest = opened.document
    matches = (match(deployment, catalogue, device_class) for deployment in manifest.deployments)
    return Plan(
        group=manifest.group,
        sequence=manifest.sequence,
        digest=opened.mark.digest,
        root=root,
        expires_s=parse_time(manifest.expires),
        deployments=tuple(_deployment(matched) for matched in matches),
        floors=floors,
    )


def _deployment(matched: Match) -> PlannedDeployment:
    deployment, fallback = matched.deployment, matched.fallback
    urls = _urls(deployment)
    release = _release(deployment.package, deployment.version, deployment.counter, matched.parts, urls)
    back = None
    if fallback is not None:
        back = _release(deployment.package, fallback.version, fallback.counter, matched.fallback_parts, urls)
    return PlannedDeployment(
        id=deployment.id,
        release=release,
        state=deployment.state,
        share_bp=deployment.share_bp,
        salt=deployment.salt,
        devices=deployment.devices,
        fallback=back,
        not_before_s=None if deployment.not_before is None else parse_time(deployment.not_before),
        window=deployment.window,
        probation_s=deployment.probation_s,
        refusal=matched.refusal,
        irreversible=deployment.irreversible,
    )


def _release(
    package: str, version: str, counter: int, parts: tuple[Part, ...], urls: Mapping[str, tuple[str, ...]]
) -> PlannedRelease:
    """Without parts, the release only names what may be in a slot already."""
    targets = tuple(_target(part, urls.get(part.target.sha256, ())) for part in parts)
    return PlannedRelease(package=package, version=version, counter=counter, targets=targets)


def _target(part: Part, urls: tuple[str, ...]) -> PlannedTarget:
    target, info = part.target, part.info
    return PlannedTarget(
        path=target.path,
        length=target.length,
        sha256=target.sha256,
        kind=info.kind,
        format=info.format,
        unpacked_size=info.unpacked_size,
        unpacked_files=info.unpacked_files,
        install=info.install,
        part=info.part,
        urls=urls,
    )


def _urls(deployment: Deployment) -> Mapping[str, tuple[str, ...]]:
    urls: dict[str, tuple[str, ...]] = {}
    for source in deployment.sources:
        urls[source.sha256] = (*urls.get(source.sha256, ()), source.url)
    return urls
