"""Download the release's artifacts into the cache."""

from collections.abc import Mapping
from typing import Any

from device_agent.adapters.files import storing
from device_agent.core.codec import from_json
from device_agent.core.plan import PlannedRelease
from device_agent.installers.download import Downloader
from device_agent.worker.context import WorkerContext


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"release"}` -> `{}`: every artifact is in the cache, whole, verified and synced, and so is every package that
    the device has to get from its own repositories."""
    release = from_json(PlannedRelease, args["release"])
    total = sum(target.length for target in release.targets) or 1
    before, told = 0, -1.0

    def progress(size: int) -> None:
        nonlocal told
        share = (before + size) / total
        if share - told >= 0.01 or share >= 1.0 > told:
            told = share
            context.progress(share)

    settings = context.settings
    downloader = Downloader(settings.state_dir / "cache", settings.download, progress)
    for target in release.targets:
        with storing(f"downloading {target.path}"):
            downloader.fetch(target)
        before += target.length
    if any(package.file is None for target in release.targets for package in target.install.packages):
        from device_agent.installers.package_fetch import fetch_packages  # noqa: PLC0415 - few releases need apt

        with storing("downloading packages"):
            fetch_packages(release, settings.state_dir / "cache", settings.system_root)
    return {}
