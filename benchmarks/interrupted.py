"""What an installation loses that is killed half way, and what it leaves behind.

    python -m benchmarks.interrupted [--size-mib 256] [--rounds 5] [--dir DIR]

The worker is killed with SIGKILL once half of its bytes are written: in the download, and while it writes the slot,
from an artifact `raw` and from two tar.zst. Then the operation is run again to its end. Printed is the work that was
done twice: what both runs together have handed to write(2), less what one run needs, the largest of all rounds; and how
many files are left at last besides the installed ones.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.file_server import serving
from benchmarks.install import MIB, Bench, Subject, answer_of
from benchmarks.processes import compiled_below, file_system, written_bytes
from device_agent.core.effects import Commit, Effect, Fetch, Stage
from device_agent.installers.slots import Slots

BAR_MIB = 1.0


class Interrupted(Bench):
    """The same artifacts; every operation is killed half way and then run again."""

    def twice(self, effect: Effect, subject: Subject) -> float:
        """MiB that were written for nothing."""
        fetches = isinstance(effect, Fetch)
        size = subject.release.targets[0].length if fetches else subject.content.stat().st_size
        return (self._killed(effect, subject, size // 2) + self._ended(effect, subject) - size) / MIB

    def _killed(self, effect: Effect, subject: Subject, half: int) -> int:
        with self.started(effect, subject) as process:
            while written_bytes(process.pid) < half:
                time.sleep(0.0005)
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            written = written_bytes(process.pid)
            process.kill()
        return written

    def _ended(self, effect: Effect, subject: Subject) -> int:
        with self.started(effect, subject) as process:
            answer_of(process)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # what it wrote is told until it is waited for
            return written_bytes(process.pid)

    def left(self) -> int:
        """Files below the state directory that are neither installed nor locks."""
        slots = self.state / "slots"
        found = [path for path in self.state.rglob("*") if path.is_file() and not path.is_relative_to(slots)]
        return len([path for path in found if path.suffix != ".lock"])


def run(size_mib: int, rounds: int, parent: Path) -> tuple[dict[str, float], int]:
    """The largest loss by what was interrupted, and how many files are left."""
    with (
        tempfile.TemporaryDirectory(dir=parent, prefix="bench-", ignore_cleanup_errors=True) as scratch,
        serving(Path(scratch)) as (port, _),
    ):
        compiled_below(Path(scratch))
        bench = Interrupted(Path(scratch), size_mib * MIB, port)
        bench.round()  # compiles, which writes too
        slots = Slots(bench.state, "bench")
        lost: dict[str, float] = {}
        for _ in range(rounds):
            for subject in bench.subjects:
                for effect in (Fetch(), Stage()):
                    name = f"{type(effect).__name__.lower()} {subject.name}"
                    lost[name] = max(lost.get(name, 0.0), bench.twice(effect, subject))
                bench.work(Commit(package="bench", slot="a", release=subject.release), subject)
                slots.clear("a")
        return lost, bench.left()


def main() -> int:
    """Exit status 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=256, help="content of each artifact (256)")
    parser.add_argument("--rounds", type=int, default=5, help="interruptions of each (5)")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="where to install")
    options = parser.parse_args()
    lost, left = run(options.size_mib, options.rounds, options.dir)
    print(f"{options.size_mib} MiB on {file_system(options.dir)}, killed half way, {options.rounds} times each")
    for name, mib in lost.items():
        print(f"  {name:14} {mib:6.2f} MiB done twice at most   bar {BAR_MIB}   {'ok' if mib <= BAR_MIB else 'MISSED'}")
    print(f"  {left} files left   bar 0   {'ok' if not left else 'MISSED'}")
    return 0 if all(mib <= BAR_MIB for mib in lost.values()) and not left else 1


if __name__ == "__main__":
    sys.exit(main())
