"""What every catalogue keeps to, whoever edited it.

Rules
1. One version of a package has one counter, and one counter has one version.
2. No release is below its package's floor, and a floor never falls.
3. What a release requires is in the same catalogue.
4. A path that is already signed keeps its bytes: a version is never used twice.
5. A path starts with its package's name.
6. The artifacts of one release are for different classes, or each is a part of its own: a device finds exactly one
   artifact, or parts that belong together.
"""

from collections.abc import Iterable, Mapping

from tuf.api.metadata import Targets

from firmware_tools.metadata import entry, floors
from fleet_protocol.catalogue import TargetInfo, check_parts
from fleet_protocol.errors import PolicyError, ProtocolError


def check_rules(targets: Targets, signed: Targets | None) -> None:
    """Raise PolicyError `conflict` unless `targets` may follow the `signed` catalogue (rules 1 to 6)."""
    found = {path: entry(targets, path) for path in sorted(targets.targets)}
    described = {path: info for path, (info, _, _) in found.items()}
    _check_counters(described.values())
    _check_floors(described.values(), floors(targets))
    _check_requirements(described, {(info.package, sha256) for info, _, sha256 in found.values()})
    _check_places(described)
    if signed is not None:
        _check_follows(targets, signed)


def _check_counters(described: Iterable[TargetInfo]) -> None:  # rule 1
    versions: dict[tuple[str, int], str] = {}
    counters: dict[tuple[str, str], int] = {}
    for info in described:
        if versions.setdefault((info.package, info.counter), info.version) != info.version:
            raise PolicyError("conflict", f"{info.package}: two versions have counter {info.counter}")
        if counters.setdefault((info.package, info.version), info.counter) != info.counter:
            raise PolicyError("conflict", f"{info.package} {info.version} has two counters")


def _check_floors(described: Iterable[TargetInfo], low: Mapping[str, int]) -> None:  # rule 2
    for info in described:
        if info.counter < low.get(info.package, 0):
            detail = f"{info.package} {info.version} (counter {info.counter}) is below the floor: remove it first"
            raise PolicyError("conflict", detail)


def _check_requirements(described: Mapping[str, TargetInfo], listed: set[tuple[str, str]]) -> None:  # rule 3
    for path, info in described.items():
        for wanted in info.requires:
            if (wanted.package, wanted.sha256) not in listed:
                raise PolicyError("conflict", f"{path} requires {wanted.package} {wanted.sha256[:12]}: not listed")


def _check_places(described: Mapping[str, TargetInfo]) -> None:  # rules 5 and 6
    releases: dict[tuple[str, str], list[TargetInfo]] = {}
    for path, info in described.items():
        if path.split("/")[0] != info.package:
            raise PolicyError("conflict", f"{path} does not start with its package, {info.package}")
        releases.setdefault((info.package, info.version), []).append(info)
    for (package, version), infos in releases.items():
        try:
            check_parts(infos)
        except ProtocolError as error:
            raise PolicyError("conflict", f"{package} {version}: {error.detail}") from None


def _check_follows(targets: Targets, signed: Targets) -> None:  # rules 2 and 4
    for package, counter in floors(signed).items():
        if floors(targets).get(package, 0) < counter:
            raise PolicyError("conflict", f"the floor of {package} would fall below {counter}")
    for path in set(targets.targets) & set(signed.targets):
        if targets.targets[path].hashes != signed.targets[path].hashes:
            raise PolicyError("conflict", f"{path} is signed already with other bytes")
