"""Gets the packages that a release names and does not bring out of the device's own repositories, into the cache."""

from pathlib import Path

from device_agent.adapters.files import fsync_dir, remove
from device_agent.core.plan import PlannedRelease
from device_agent.installers.apt import Apt, Wanted
from device_agent.installers.crash import crash_point
from device_agent.installers.programs import Programs, search_path
from device_agent.installers.slot_debs import copy_durably, digest
from fleet_protocol.errors import InstallError, ProtocolError
from fleet_protocol.install import DebianPackage


def fetch_packages(release: PlannedRelease, cache: Path, system_root: Path) -> None:
    """Every such package is in the cache under its digest, verified and synced.

    Raises ProtocolError `digest` where the repositories have other bytes under that version, InstallError
    `dependencies` where they do not have the version, TransportError where they can not be reached.
    """
    wanted = [package for target in release.targets for package in target.install.packages if package.file is None]
    missing = [package for package in wanted if not _have(cache / package.sha256, package.sha256)]
    if not missing:
        return
    apt = Apt(system_root, Programs(search_path(system_root)), cache / "apt")
    if not apt.available:
        raise InstallError("unsupported", "this device has no apt, and the release does not bring all its packages")
    try:
        for package in missing:
            _fetch(package, cache, apt)
    finally:
        apt.close()


def _have(place: Path, sha256: str) -> bool:
    return place.is_file() and digest(place) == sha256


def _fetch(package: DebianPackage, cache: Path, apt: Apt) -> None:
    found = apt.download(Wanted(name=package.name, version=package.version, architecture=package.architecture))
    part = cache / f"{package.sha256}.part"
    copied = copy_durably(found, part)
    if copied != package.sha256:
        remove(part)
        offered = f"the repositories' {package.name} {package.version} has digest {copied}"
        raise ProtocolError("digest", f"{offered}, {package.sha256} is signed")
    crash_point("package.before_fetched")
    part.replace(cache / package.sha256)
    fsync_dir(cache)
    crash_point("package.after_fetched")
