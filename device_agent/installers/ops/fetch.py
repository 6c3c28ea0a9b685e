"""Download the release's artifacts into the cache."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from device_agent.adapters.files import storing
from device_agent.core.codec import from_json
from device_agent.core.plan import PlannedRelease
from device_agent.installers.download import Downloader
from device_agent.worker.context import WorkerContext
from device_agent.worker.steps import LIFE_S


class Tale:
    """Tells how much of a release is there: each hundredth, and as long as bytes arrive at least every `LIFE_S`."""

    def __init__(
        self, total: int, progress: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._progress, self._clock = total or 1, progress, clock
        self._share, self._told_s = -1.0, clock()
        self.before = 0
        """Bytes of the artifacts that are there already."""

    def there(self, size: int) -> None:
        """So much of the artifact under way has arrived; less than before where it is loaded once more."""
        share, now_s = (self.before + size) / self._total, self._clock()
        if share - self._share >= 0.01 or share >= 1.0 > self._share or now_s - self._told_s >= LIFE_S:
            self._share, self._told_s = share, now_s
            self._progress(share)


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"release"}` -> `{}`: every artifact is in the cache, whole, verified and synced, and so is every package that
    the device has to get from its own repositories."""
    release = from_json(PlannedRelease, args["release"])
    settings, tale = context.settings, Tale(sum(target.length for target in release.targets), context.progress)
    downloader = Downloader(settings.state_dir / "cache", settings.download, tale.there)
    for target in release.targets:
        with storing(f"downloading {target.path}"):
            downloader.fetch(target)
        tale.before += target.length
    if any(package.file is None for target in release.targets for package in target.install.packages):
        from device_agent.installers.package_fetch import fetch_packages  # noqa: PLC0415 - few releases need apt

        with storing("downloading packages"):
            fetch_packages(release, settings.state_dir / "cache", settings.system_root)
    return {}
