"""How fast an artifact becomes an installed tree, beside a program that does no more than it must.

    python -m benchmarks.install [--size-mib 256] [--rounds 8] [--dir DIR]

`stage` is the worker's operation on an artifact in the cache, from the start of its process to its answer: read, hash,
unpack, hash what was unpacked, write, sync. Beside it, in the same round and each in a process of its own:

- `one pass`: a Python program that reads a file with the same content, hashes it, writes it and syncs it.
- `one pass, unpacking`: the same program, but that it reads the tar.zst and unpacks it with the same library.

Three artifacts: `raw`; `stored`, the same random bytes in a tar.zst, which can not compress them; and `packed`, a
tar.zst of this Python's own programs and libraries. Every ratio is taken within one round, and the medians over the
rounds are printed. `fetch` is the download over HTTP from loopback, `read back` is what activating does before the
switch.

Hashing runs beside the rest, so this wants two CPUs. How much of them other programs had is printed too; on a busy
machine, `chrt -r 1` in front keeps them away from both sides alike.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.file_server import serving
from benchmarks.processes import Load, compiled_below, file_system
from device_agent.core.effects import Effect, Fetch, Stage
from device_agent.core.plan import PlannedRelease, PlannedTarget
from device_agent.core.record import Attempt, Record
from device_agent.installers.slots import Slots
from device_agent.operations import operation
from firmware_tools.packing import ReleaseSpec, pack
from fleet_protocol.install import Install

MIB = 2**20
BAR = 0.8
JUDGED = (
    ("raw", "one pass"),
    ("stored", "one pass"),
    ("stored", "one pass, unpacking"),
    ("packed", "one pass, unpacking"),
)
ONE_PASS = """
import hashlib, os, sys
digest, buffer = hashlib.sha256(), bytearray(1 << 20)
view = memoryview(buffer)
with open(sys.argv[1], "rb", buffering=0) as read, open(sys.argv[2], "wb", buffering=0) as write:
    while size := read.readinto(buffer):
        digest.update(view[:size])
        write.write(view[:size])
    os.fsync(write.fileno())
"""
UNPACKING = """
import hashlib, os, sys, zstandard
digest, unpacker = hashlib.sha256(), zstandard.ZstdDecompressor().decompressobj()
with open(sys.argv[1], "rb", buffering=0) as read, open(sys.argv[2], "wb", buffering=0) as write:
    while data := read.read(1 << 20):
        digest.update(data)
        write.write(unpacker.decompress(data))
    os.fsync(write.fileno())
"""


@dataclass(frozen=True)
class Subject:
    """One artifact, the content that comes of it, and what is measured beside its installation."""

    name: str
    content: Path
    artifact: Path
    release: PlannedRelease
    bases: tuple[str, ...]

    @property
    def attempt(self) -> Attempt:
        """A first installation."""
        return Attempt(
            deployment="d-bench",
            release=self.release,
            purpose="install",
            number=1,
            slot="a",
            previous=None,
            probation_s=1,
        )

    @property
    def digest(self) -> str:
        return self.release.targets[0].sha256


@dataclass
class Figures:
    """Seconds of each round by name."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def timed(self, name: str, run: Callable[[], Any]) -> Any:
        start_s = time.perf_counter()
        result = run()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start_s)
        return result

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """How fast `name` is beside `base`, round by round."""
        pairs = zip(self.seconds[base], self.seconds[name], strict=True)
        return statistics.median(beside_s / own_s for beside_s, own_s in pairs)


class Bench:
    """A state directory, the artifacts, and a server for them."""

    def __init__(self, root: Path, size: int, port: int) -> None:
        self.root, self.port, self.state = root, port, root / "state"
        self.config = root / "agent.toml"
        self.config.write_text(
            'device = "bench"\nfleet = "bench"\nclass = "any"\nstate_dir = "state"\n'
            '[download]\nallowed_hosts = ["127.0.0.1"]\n'
        )
        self.figures = Figures()
        noise, programs = root / "noise", root / "programs"
        fill(noise / "data", size, random_bytes())
        fill(programs / "data", size, installed_bytes())
        plain, unpacking = "one pass", "one pass, unpacking"
        self.subjects = (
            self._subject("raw", noise, "raw", 1, (plain,)),
            self._subject("stored", noise, "tar.zst", 1, (plain, unpacking)),
            self._subject("packed", programs, "tar.zst", 3, (plain, unpacking)),
        )

    def _subject(self, name: str, source: Path, format_: str, level: int, bases: tuple[str, ...]) -> Subject:
        spec = ReleaseSpec(package="bench", version="1", counter=1, kind="files", classes=("any",))
        artifact = self.root / name
        made = pack(source / "data" if format_ == "raw" else source, artifact, spec, level=level)
        target = PlannedTarget(
            path=made.path,
            length=made.length,
            sha256=made.sha256,
            kind="files",
            format=format_,
            unpacked_size=made.custom.unpacked_size,
            unpacked_files=made.custom.unpacked_files,
            install=Install(exec=(), stop_s=1, check=None),
            urls=(f"http://127.0.0.1:{self.port}/{name}",),
        )
        release = PlannedRelease(package="bench", version="1", counter=1, targets=(target,))
        return Subject(name, source / "data", artifact, release, bases)

    def round(self, number: int = 0) -> None:
        """Every other round begins with the installation: whoever comes second finds memory that is warm."""
        for subject in self.subjects:
            self.figures.timed(f"{subject.name}: fetch", partial(self.work, Fetch(), subject))
            steps = [*(partial(self.one_pass, subject, base) for base in subject.bases), partial(self.install, subject)]
            for step in reversed(steps) if number % 2 else steps:
                step()
            (self.state / "cache" / subject.digest).unlink()

    def one_pass(self, subject: Subject, base: str) -> None:
        """What no installer can do without, as a program of its own."""
        source, code = (subject.content, ONE_PASS) if base == "one pass" else (subject.artifact, UNPACKING)
        copy = self.root / "copy"
        command = (sys.executable, "-c", code, str(source), str(copy))
        self.figures.timed(f"{subject.name}: {base}", lambda: subprocess.run(command, check=True))
        copy.unlink()

    def install(self, subject: Subject) -> None:
        """From the cache to the slot, and the slot read again."""
        slots = Slots(self.state, "bench")
        stage = self.figures.timed(f"{subject.name}: stage", lambda: self.work(Stage(), subject))
        self.figures.timed(f"{subject.name}: read back", lambda: slots.verify("a", stage["tree"]))
        slots.clear("a")

    def work(self, effect: Effect, subject: Subject) -> dict[str, Any]:
        """One effect in a worker process, from its start to its answer."""
        with self.started(effect, subject) as process:
            return answer_of(process)

    def started(self, effect: Effect, subject: Subject) -> "subprocess.Popen[bytes]":
        """The worker, as the agent asks it for this effect of a first installation."""
        wanted = operation(effect, Record(attempt=subject.attempt))
        assert wanted is not None
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", "device_agent.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        request = {"op": wanted.op, "args": wanted.args, "config": str(self.config)}
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        return process


def answer_of(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """The result of a worker that must not fail."""
    assert process.stdout is not None
    answer = next((line for line in map(json.loads, process.stdout) if "ok" in line), {"ok": False})
    if not answer["ok"]:
        raise SystemExit(f"the worker fails: {answer}")
    result: dict[str, Any] = answer["result"]
    return result


def fill(path: Path, size: int, blocks: Iterator[bytes]) -> None:
    """A file of `size` bytes made of these blocks."""
    path.parent.mkdir()
    with path.open("wb") as file:
        while (left := size - file.tell()) > 0:
            file.write(next(blocks)[:left])


def random_bytes() -> Iterator[bytes]:
    """What no compressor makes smaller."""
    while True:
        yield os.urandom(MIB)


def installed_bytes() -> Iterator[bytes]:
    """This Python's own files, over and over: what programs and libraries are like."""
    roots = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platlib")}
    paths = [path for root in sorted(roots) for path in sorted(root.rglob("*")) if path.is_file()]
    for path in itertools.cycle(paths):
        yield path.read_bytes()


def run(size_mib: int, rounds: int, parent: Path) -> tuple[Figures, float]:
    """All rounds on artifacts of this size, and what other programs had of the CPUs; nothing stays on the disk."""
    with (
        tempfile.TemporaryDirectory(dir=parent, prefix="bench-", ignore_cleanup_errors=True) as scratch,
        serving(Path(scratch)) as (port, server),
    ):
        compiled_below(Path(scratch))
        bench = Bench(Path(scratch), size_mib * MIB, port)
        bench.round()  # compiles, and fills the page cache
        bench.figures = Figures()
        began = Load.now(server)
        for number in range(rounds):
            bench.round(number)
        return bench.figures, Load.now(server).others_since(began)


def main() -> int:
    """Exit status 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mib", type=int, default=256, help="content of each artifact (256)")
    parser.add_argument("--rounds", type=int, default=8, help="medians of so many (8)")
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="where to install (/dev/shm)")
    options = parser.parse_args()
    figures, others = run(options.size_mib, options.rounds, options.dir)
    print(f"{options.size_mib} MiB on {file_system(options.dir)}, medians of {options.rounds}")
    print(f"other programs had {others:.0%} of {os.cpu_count()} CPUs meanwhile")
    for name in figures.seconds:
        print(f"  {name:28} {figures.median(name):7.3f} s {options.size_mib / figures.median(name):7.0f} MiB/s")
    ratios = {row: figures.ratio(f"{row[0]}: stage", f"{row[0]}: {row[1]}") for row in JUDGED}
    for (name, base), ratio in ratios.items():
        print(f"stage {name:8} {ratio:5.2f} of {base:22} bar {BAR}   {'ok' if ratio >= BAR else 'MISSED'}")
    print(
        f"stage packed   {figures.ratio('packed: stage', 'packed: one pass'):5.2f} of one pass, which does not unpack"
    )
    return 0 if all(ratio >= BAR for ratio in ratios.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
