"""What the resident costs a device that has nothing to do: memory, wake-ups, CPU time, and how soon it is there.

    python -m benchmarks.agent_idle [--seconds 180] [--starts 7]

Starts a mosquitto, an enrolled agent with its settings' defaults, and beside it a Python that only sleeps. Prints the
proportional set size (PSS) of both, medians of ten readings; the agent's voluntary context switches a minute and its
CPU seconds an hour, over all its threads, beside those of the Python that sleeps; and the time from the start of
`fairlead-agent run` until a subscriber has its first heartbeat, beside a Python that starts and ends, medians. Bytecode
is compiled beforehand, as it is where the agent is installed.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Load, compiled_below, cpu_s, pss_mib, wake_ups
from tests.fakes.agent_process import AgentProcess, ServerSide
from tests.fakes.brokers import mosquitto
from tests.fakes.trust_fleet import Fleet
from tests.fakes.waiting import until

NODE = "node-1"
MENDER_MIB = 14.4
"""Mender's client (Go), connected and idle."""
MENDER_TO_BARE = 14.4 / 3.2
"""The same against a bare Python beside it, where both were measured."""
WAKE_UPS = 6.0
READINGS = 10


@dataclass(frozen=True)
class Idle:
    """What one process took while it was watched."""

    pss_mib: float
    wakes: dict[str, float]
    """A minute, by thread."""
    cpu_s: float
    """An hour."""


class Watch:
    """Counts from its making on."""

    def __init__(self, pid: int) -> None:
        self.pid, self.began_s = pid, time.monotonic()
        self.wakes, self.cpu_s = wake_ups(pid), cpu_s(pid)
        self.readings: list[float] = []

    def read(self) -> None:
        self.readings.append(pss_mib(self.pid))

    def end(self) -> Idle:
        hours = (time.monotonic() - self.began_s) / 3600
        wakes = {name: (count - self.wakes.get(name, 0)) / hours / 60 for name, count in wake_ups(self.pid).items()}
        return Idle(statistics.median(self.readings), wakes, (cpu_s(self.pid) - self.cpu_s) / hours)


@contextmanager
def enrolled() -> Iterator[tuple[AgentProcess, ServerSide]]:
    """An agent that has obeyed its manifest once and is stopped, and the server's side of its broker."""
    with tempfile.TemporaryDirectory() as scratch, mosquitto(Path(scratch)) as broker:
        compiled_below(Path(scratch))
        fleet = Fleet()
        fleet.publish()
        fleet.assignment()
        fleet.manifest()
        agent = AgentProcess(Path(scratch) / "agent", broker.url, fleet, settings="[intervals]\nheartbeat_s = 60\n")
        agent.init()
        server = ServerSide(broker, fleet)
        server.publish_all()
        agent.start()
        try:
            until(lambda: server.newest(NODE, "state").get("sequence") == fleet.sequence, deadline_s=60)
            agent.kill(signal.SIGTERM)
            yield agent, server
        finally:
            if agent.process is not None:
                agent.kill(signal.SIGTERM)
            server.close()


def first_heartbeat_s(agent: AgentProcess, server: ServerSide) -> float:
    """From the start of the agent's process; the agent runs on."""
    before = len(server.heard(NODE, "heartbeat"))
    start_s = time.perf_counter()
    agent.start()
    while len(server.heard(NODE, "heartbeat")) == before:
        time.sleep(0.0005)
    return time.perf_counter() - start_s


def bare_start_s() -> float:
    """A Python that has nothing to do, from its start to its end."""
    start_s = time.perf_counter()
    subprocess.run((sys.executable, "-c", "pass"), check=True)
    return time.perf_counter() - start_s


def measure_starts(agent: AgentProcess, server: ServerSide, starts: int) -> tuple[list[float], list[float]]:
    """Seconds to the first heartbeat and of a bare start, in pairs; the agent runs in the end."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(starts):
        if agent.process is not None:
            agent.kill(signal.SIGTERM)
        seconds[0].append(first_heartbeat_s(agent, server))
        seconds[1].append(bare_start_s())
    return seconds


def measure_idle(agent: AgentProcess, server: ServerSide, seconds: float) -> tuple[Idle, Idle]:
    """The agent, and a Python that sleeps beside it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(36000)"]) as bare:
        try:
            until(lambda: server.heard(NODE, "report"), deadline_s=60)
            time.sleep(10)
            watches = Watch(agent.pid), Watch(bare.pid)
            for _ in range(READINGS):
                time.sleep(seconds / READINGS)
                for watch in watches:
                    watch.read()
            return watches[0].end(), watches[1].end()
        finally:
            bare.kill()


def main() -> int:
    """Exit status 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long to watch (180)")
    parser.add_argument("--starts", type=int, default=7, help="how many cold starts (7)")
    options = parser.parse_args()
    with enrolled() as (agent, server):
        starts, bare_starts = measure_starts(agent, server, options.starts)
        began = Load.now()
        idle, bare = measure_idle(agent, server, options.seconds)
        others = Load.now().others_since(began)
    wakes = sum(idle.wakes.values())
    rows = [
        ("agent PSS, MiB", idle.pss_mib, MENDER_MIB),
        ("agent PSS / bare Python PSS", idle.pss_mib / bare.pss_mib, MENDER_TO_BARE),
        ("wake-ups a minute", wakes, WAKE_UPS),
    ]
    print(f"bare Python PSS, MiB           {bare.pss_mib:8.2f}")
    for name, value, bar in rows:
        print(f"{name:<30} {value:8.2f}   bar {bar:6.2f}   {'ok' if value <= bar else 'MISSED'}")
    for name, value in sorted(idle.wakes.items(), key=lambda item: -item[1]):
        print(f"  {name:<28} {value:8.2f}")
    print(f"CPU seconds an idle hour       {idle.cpu_s:8.2f}   bare Python {bare.cpu_s:.2f}")
    start_s, bare_s = statistics.median(starts), statistics.median(bare_starts)
    ratio = statistics.median(one / other for one, other in zip(starts, bare_starts, strict=True))
    print(f"start to first heartbeat, s    {start_s:8.3f}   bare Python {bare_s:.3f}, {ratio:.1f} times that")
    print(f"(other programs had {others:.0%} of the CPUs meanwhile)")
    return 0 if all(value <= bar for _, value, bar in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
