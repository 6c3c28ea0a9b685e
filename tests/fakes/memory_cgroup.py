"""A limit on the memory of many processes together, by the kernel's memory controller of either version."""

import time
from contextlib import suppress
from pathlib import Path

import pytest

_MOUNTS = Path("/sys/fs/cgroup")


class MemoryCgroup:
    """Whoever writes its process id into `processes` is counted, with all that it starts."""

    def __init__(self, name: str, limit_mb: int) -> None:
        self._place, limit, self._peak = _place(name)
        self._place.mkdir()
        (self._place / limit).write_text(str(limit_mb << 20))
        self.processes = self._place / "cgroup.procs"

    @property
    def peak_mb(self) -> float:
        """The most that was in use at once, caches of files among it."""
        return int((self._place / self._peak).read_text()) / 2**20

    def close(self) -> None:
        """The group is gone; its processes must have ended, which the kernel may take a moment to notice."""
        for _ in range(100):
            with suppress(OSError):
                self._remove(self._place)
                return
            time.sleep(0.02)
        raise AssertionError(f"{self._place} is still in use")

    def _remove(self, place: Path) -> None:
        for child in place.iterdir():
            if child.is_dir():
                self._remove(child)
        place.rmdir()


def _place(name: str) -> tuple[Path, str, str]:
    """Where the group is made, and what its files are called."""
    rows = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, path in rows:
        if "memory" in controllers.split(","):
            place = _MOUNTS / "memory" / path.strip("/") / name
            return place, "memory.limit_in_bytes", "memory.max_usage_in_bytes"
    if "memory" in (_MOUNTS / "cgroup.subtree_control").read_text().split():
        return _MOUNTS / name, "memory.max", "memory.peak"
    pytest.skip("the kernel's memory controller is not to be had here")
