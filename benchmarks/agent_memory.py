"""What an installation takes of a device's memory: the resident and its workers together, whatever the size.

    python -m benchmarks.agent_memory [--sizes-mib 16,256,1024] [--dir DIR]

A mosquitto, a web server and an enrolled agent with its settings' defaults. For each size there is a release `raw` of
random bytes, and one in a tar.zst that can not compress them; each is downloaded, installed, switched to, proved and
committed. All the while the proportional set sizes (PSS) of the resident and of its workers are added up every few
milliseconds. Printed are the largest sum and the largest worker.
"""

import argparse
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.file_server import serving
from benchmarks.install import MIB, fill, random_bytes
from benchmarks.processes import children, compiled_below, file_system, pss_mib
from firmware_tools.packing import ReleaseSpec, pack
from fleet_protocol.manifest import Target
from tests.fakes.agent_process import AgentProcess, ServerSide
from tests.fakes.brokers import mosquitto
from tests.fakes.trust_fleet import Fleet, Released

BAR_MIB = 48.0
KINDS = ("raw", "tar")


@dataclass
class Peak:
    """The largest sum, and the largest worker, in MiB."""

    all: float = 0.0
    worker: float = 0.0

    def look(self, resident: int) -> None:
        workers = [pss_mib(pid) for pid in children(resident)]
        self.all = max(self.all, pss_mib(resident) + sum(workers))
        self.worker = max(self.worker, *workers, 0.0)


class Site:
    """One device, what it hears, and where it downloads from."""

    def __init__(self, scratch: Path, fleet: Fleet, agent: AgentProcess, server: ServerSide, port: int) -> None:
        self.scratch, self.fleet, self.agent, self.server, self.port = scratch, fleet, agent, server, port
        self.artifact = scratch / "artifact"

    def install(self, size_mib: int, kind: str) -> Peak:
        """The peak of one installation, from its manifest to its commit."""
        package = f"{kind}-{size_mib}"
        self._release(package, size_mib, kind)
        url = f"http://127.0.0.1:{self.port}/{self.artifact.name}"
        deployment = self.fleet.deployment(package, "1", urls=[url], probation_s=1)
        self.fleet.publish()
        self.fleet.manifest(deployment)
        peak, heard = Peak(), 0
        self.server.publish_all()
        while True:
            peak.look(self.agent.pid)
            reports = len(self.server.heard(self.fleet.device, "report"))
            if reports > heard and (ended := self._outcome(deployment.id)) is not None:
                break
            heard = reports
            time.sleep(0.003)
        if ended != "committed":
            raise SystemExit(f"{package}: {ended}\n{self.agent.log.read_text()[-2_000:]}")
        return peak

    def _release(self, package: str, size_mib: int, kind: str) -> None:
        source = self.scratch / "source" / "data"
        fill(source, size_mib * MIB, random_bytes())
        spec = ReleaseSpec(package=package, version="1", counter=1, kind="files", classes=(self.fleet.device_class,))
        made = pack(source if kind == "raw" else source.parent, self.artifact, spec, level=1)
        source.unlink()
        source.parent.rmdir()
        target = Target(path=made.path, length=made.length, sha256=made.sha256)
        self.fleet.releases.append(Released(target, made.custom, b""))

    def _outcome(self, deployment: str) -> str | None:
        for report in reversed(self.server.reports(self.fleet.device)):
            attempt = report["attempt"]
            if attempt and attempt["deployment"] == deployment and attempt["outcome"]:
                return str(attempt["outcome"])
        return None


def measure(sizes_mib: list[int], parent: Path) -> dict[tuple[int, str], Peak]:
    """The peaks by size and kind, each of an installation by the same agent."""
    with (
        tempfile.TemporaryDirectory(dir=parent, prefix="bench-") as directory,
        mosquitto(Path(directory)) as broker,
        serving(Path(directory)) as (port, _),
    ):
        scratch, fleet = Path(directory), Fleet()
        compiled_below(scratch)
        fleet.assignment()
        agent = AgentProcess(scratch / "agent", broker.url, fleet, settings="[intervals]\nheartbeat_s = 60\n")
        agent.init()
        server = ServerSide(broker, fleet)
        agent.start()
        try:
            site = Site(scratch, fleet, agent, server, port)
            site.install(1, "tar")  # compiles all of the agent, which takes memory itself
            agent.kill(signal.SIGTERM)
            agent.start()
            return {(size, kind): site.install(size, kind) for kind in KINDS for size in sizes_mib}
        finally:
            agent.kill(signal.SIGTERM)
            server.close()


def main() -> int:
    """Exit status 1 where the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes-mib", default="16,256,1024", help="contents to install (16,256,1024)")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="where to install")
    options = parser.parse_args()
    peaks = measure([int(size) for size in options.sizes_mib.split(",")], options.dir)
    print(f"largest PSS while installing on {file_system(options.dir)}, MiB")
    for (size, kind), peak in peaks.items():
        verdict = "ok" if peak.all <= BAR_MIB else "MISSED"
        print(
            f"  {kind:4} {size:6} MiB   in all {peak.all:6.1f}   worker {peak.worker:6.1f}   bar {BAR_MIB}   {verdict}"
        )
    return 0 if all(peak.all <= BAR_MIB for peak in peaks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
