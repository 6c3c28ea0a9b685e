"""What the kernel says of running processes."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2


def compiled_below(directory: Path) -> None:
    """Processes started from here on keep their bytecode there: where an agent is installed it is compiled already."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(directory / "bytecode")


def pss_mib(pid: int) -> float:
    """Proportional set size; 0 once the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) / 1024


def children(pid: int) -> list[int]:
    """Processes that it has started and that run a program of their own: until then they are its own memory."""
    found: list[int] = []
    for task in _tasks(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (task / "children").read_text().split())
    own = _command(pid)
    return [child for child in found if _command(child) not in (own, b"")]


def cpu_s(pid: int) -> float:
    """Time on a CPU so far, with threads that have ended, by the scheduler's clock (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def wake_ups(pid: int) -> dict[str, int]:
    """Voluntary context switches so far, by thread."""
    counts = {}
    for task in _tasks(pid):
        lines = (task / "status").read_text().splitlines()
        count = next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
        counts[f"{(task / 'comm').read_text().strip()}-{task.name}"] = count
    return counts


def written_bytes(pid: int) -> int:
    """Bytes handed to write(2) and its like so far."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


@dataclass(frozen=True)
class Load:
    """How busy the machine has been until now, and what is being measured of it, in CPU seconds."""

    at_s: float
    all_s: float
    own_s: float

    @classmethod
    def now(cls, *beside: int) -> "Load":
        """Own are this process, its children that have ended, and the processes `beside` it."""
        fields = list(map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]))
        ticks = sum(fields) - fields[3] - fields[4]  # all but idle and iowait
        own_s = sum(os.times()[:4]) + sum(map(cpu_s, beside))
        return cls(time.monotonic(), ticks / _TICKS, own_s)

    def others_since(self, before: "Load") -> float:
        """The share of all CPUs that other programs had since `before`."""
        others_s = (self.all_s - before.all_s) - (self.own_s - before.own_s)
        return max(0.0, others_s / ((self.at_s - before.at_s) * (os.cpu_count() or 1)))


def file_system(path: Path) -> str:
    """The kind of file system that holds `path`, as the kernel names it."""
    found = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind = line.split()[:3]
        if path.resolve().is_relative_to(place) and len(place) >= len(found[0]):
            found = (place, kind)
    return found[1]


def _command(pid: int) -> bytes:
    """Empty once the process has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return []
