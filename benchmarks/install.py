"""How fast an artifact becomes an installed tree, and what that takes of memory.

    python -m benchmarks.install [--size-mib 256] [--rounds 5] [--dir DIR]

Everything is measured in the same run, interleaved, medians. One Python program that reads, hashes, writes and syncs a
file of the same size in one pass is 1.00. `stage` is the worker's operation on a cached artifact: read, hash, unpack,
write, sync. `fetch` downloads it over HTTP from loopback. Both include the start of the worker's process, as the one
pass includes the start of its own; `work alone` does not. `read back` is what activating does before the switch. Memory
is the worker's largest proportional set size, seen every few milliseconds.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from device_agent.core.codec import to_json
from device_agent.core.plan import PlannedRelease, PlannedTarget
from device_agent.installers.slots import Slots
from firmware_tools.packing import ReleaseSpec, pack
from fleet_protocol.install import Install

MIB = 2**20
BAR = 0.8
BAR_MEMORY_MIB = 48


@dataclass
class Figures:
    """Seconds of each round by name, and the worker's peak memory."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_mib: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, run: Callable[[], None]) -> None:
        start_s = time.perf_counter()
        run()
        self.add(name, time.perf_counter() - start_s)

    def add(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


class Bench:
    """A state directory, an artifact of random bytes, and a server for it."""

    def __init__(self, root: Path, size: int) -> None:
        self.root, self.size = root, size
        self.source, self.state = root / "source", root / "state"
        self.figures = Figures()
        self._write_source()
        self.releases = {kind: self._release(kind) for kind in ("tar.zst", "raw")}
        (root / "agent.toml").write_text(
            'device = "bench"\nfleet = "bench"\nclass = "any"\nstate_dir = "state"\n'
            '[download]\nallowed_hosts = ["127.0.0.1"]\n'
        )

    def _write_source(self) -> None:
        self.source.mkdir()
        with (self.source / "data").open("wb") as file:
            for _ in range(self.size // MIB):
                file.write(os.urandom(MIB))

    def _release(self, kind: str) -> PlannedRelease:
        spec = ReleaseSpec(package="bench", version="1", counter=1, kind="files", classes=("any",))
        out = self.root / f"artifact.{kind}"
        made = pack(self.source if kind == "tar.zst" else self.source / "data", out, spec, level=1)
        target = PlannedTarget(
            path=made.path,
            length=made.length,
            sha256=made.sha256,
            kind="files",
            format=kind,
            unpacked_size=made.custom.unpacked_size,
            unpacked_files=made.custom.unpacked_files,
            install=Install(exec=(), stop_s=1, check=None),
            urls=(),
        )
        return PlannedRelease(package="bench", version="1", counter=1, targets=(target,))

    def one_pass(self) -> None:
        """What no installer can do without, as a program of its own."""
        code = (
            "import hashlib, os, sys, time\n"
            "start_s = time.perf_counter()\n"
            "digest, buffer = hashlib.sha256(), bytearray(1 << 20); view = memoryview(buffer)\n"
            "with open(sys.argv[1], 'rb', buffering=0) as read, open(sys.argv[2], 'wb', buffering=0) as write:\n"
            "    while size := read.readinto(buffer): digest.update(view[:size]); write.write(view[:size])\n"
            "    os.fsync(write.fileno())\n"
            "print(time.perf_counter() - start_s)"
        )
        copy = self.root / "copy"
        start_s = time.perf_counter()
        command = [sys.executable, "-c", code, str(self.source / "data"), str(copy)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        self.figures.add("one pass", time.perf_counter() - start_s)
        self.figures.add("one pass, work alone", float(done.stdout))
        copy.unlink()

    def round(self, port: int) -> None:
        self.one_pass()
        for kind, release in self.releases.items():
            target = release.targets[0]
            cached = self.state / "cache" / target.sha256
            self.work("fetch", f"fetch {kind}", with_url(release, f"http://127.0.0.1:{port}/artifact.{kind}"))
            args = {"slot": "a", "active": None}
            tree = self.work("stage", f"stage {kind}", release, **args)["tree"]
            slots = Slots(self.state, "bench")
            self.figures.timed(f"read back {kind}", lambda slots=slots, tree=tree: slots.verify("a", tree))
            slots.clear("a")
            self.in_process(kind, release, args)
            slots.clear("a")
            cached.unlink()

    def in_process(self, kind: str, release: PlannedRelease, args: dict[str, Any]) -> None:
        """The operation alone, without the start of a process."""
        code = (
            "import json, sys, time; from pathlib import Path\n"
            "from device_agent.installers.ops import stage\n"
            "from device_agent.installers import tar_stream, zstd_frame\n"
            "from device_agent.settings import load; from device_agent.worker.context import WorkerContext\n"
            "context = WorkerContext(settings=load(Path(sys.argv[1])), want=lambda _: None)\n"
            "start_s = time.perf_counter(); stage.run(json.loads(sys.argv[2]), context)\n"
            "print(time.perf_counter() - start_s)"
        )
        request = json.dumps({"release": to_json(release), **args})
        command = [sys.executable, "-c", code, str(self.root / "agent.toml"), request]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        self.figures.add(f"stage {kind}, work alone", float(done.stdout))

    def work(self, op: str, name: str, release: PlannedRelease, **args: Any) -> dict[str, Any]:
        """One operation in a worker process, from its start to its answer."""
        request = {"op": op, "args": {"release": to_json(release), **args}, "config": str(self.root / "agent.toml")}
        start_s = time.perf_counter()
        command = [sys.executable, "-m", "device_agent.worker"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
        with subprocess.Popen(command, **pipes) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answers = (json.loads(line) for line in process.stdout)
            answer = next(line for line in answers if "ok" in line)
            self.figures.add(name, time.perf_counter() - start_s)
            process.kill()
        if not answer["ok"]:
            raise SystemExit(f"{op}: {answer}")
        result: dict[str, Any] = answer["result"]
        return result


def with_url(release: PlannedRelease, url: str) -> PlannedRelease:
    """The release with a source."""
    (target,) = release.targets
    fields = {name: getattr(target, name) for name in target.__dataclass_fields__} | {"urls": (url,)}
    return PlannedRelease(
        package=release.package, version=release.version, counter=release.counter, targets=(PlannedTarget(**fields),)
    )


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves the directory without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing."""


def serve(root: str, ports: Any) -> None:
    """The other side of the download, in a process of its own."""
    os.chdir(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), QuietHandler)
    ports.send(server.server_address[1])
    server.serve_forever()


def peak_mib(bench: Bench, op: str, release: PlannedRelease, **args: Any) -> float:
    """The largest proportional set size of a worker while it works."""
    request = {"op": op, "args": {"release": to_json(release), **args}, "config": str(bench.root / "agent.toml")}
    command = [sys.executable, "-m", "device_agent.worker"]
    peak = 0
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        os.set_blocking(process.stdout.fileno(), False)
        said = b""
        while b'"ok"' not in said:
            said += process.stdout.read() or b""
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            peak = max(peak, int(rollup.split("\nPss:")[1].split()[0]))
            time.sleep(0.003)
        process.kill()
    if b'"ok":true' not in said.replace(b" ", b""):
        raise SystemExit(said.decode())
    return peak / 1024


def measure_memory(bench: Bench, port: int, size_mib: int) -> None:
    for kind, release in bench.releases.items():
        url = f"http://127.0.0.1:{port}/artifact.{kind}"
        bench.figures.peak_mib[f"fetch {kind} {size_mib} MiB"] = peak_mib(bench, "fetch", with_url(release, url))
        staged = peak_mib(bench, "stage", release, slot="a", active=None)
        bench.figures.peak_mib[f"stage {kind} {size_mib} MiB"] = staged
        Slots(bench.state, "bench").clear("a")
        (bench.state / "cache" / release.targets[0].sha256).unlink()


def run(size_mib: int, rounds: int, parent: Path) -> Figures:
    """All rounds on an artifact of this size; nothing stays on the disk."""
    root = Path(tempfile.mkdtemp(dir=parent, prefix="bench-"))
    receiving, sending = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(str(root), sending), daemon=True)
    server.start()
    try:
        port = receiving.recv()
        bench = Bench(root, size_mib * MIB)
        for _ in range(rounds):
            bench.round(port)
        measure_memory(bench, port, size_mib)
        return bench.figures
    finally:
        server.kill()
        server.join()
        shutil.rmtree(root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size-mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    options = parser.parse_args()
    small, large = run(16, 1, options.dir), run(options.size_mib, options.rounds, options.dir)
    base_s = large.median("one pass")
    print(f"{options.size_mib} MiB of random bytes below {options.dir}, medians of {options.rounds}")
    for name in large.seconds:
        seconds = large.median(name)
        print(
            f"  {name:32} {seconds:7.3f} s {options.size_mib / seconds:7.0f} MiB/s  {base_s / seconds:5.2f} of one pass"
        )
    for name, peak in sorted((small.peak_mib | large.peak_mib).items()):
        print(f"  {name:32} {peak:7.1f} MiB at most")
    raw, packed = (base_s / large.median(f"stage {kind}") for kind in ("raw", "tar.zst"))
    print(f"install {raw:.2f} of one pass; with unpacking, and hashing what was unpacked, {packed:.2f} (bar: {BAR})")
    print(f"(hashing runs beside the rest: this wants two idle cores; load average now {os.getloadavg()[0]:.1f})")
    print(f"worker memory at most {max(large.peak_mib.values()):.1f} MiB (bar: {BAR_MEMORY_MIB} with the resident)")


if __name__ == "__main__":
    main()
