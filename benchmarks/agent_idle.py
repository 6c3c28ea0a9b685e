"""What the resident costs a device that has nothing to do: memory and wake-ups, connected and heartbeating.

    python benchmarks/agent_idle.py [--seconds 180]

Starts a mosquitto, an enrolled agent with its settings' defaults, and beside it a Python that only sleeps. Prints the
proportional set size (PSS) of both, medians of ten readings, and the agent's voluntary context switches a minute over
all its threads. Bytecode is compiled beforehand, as it is where the agent is installed.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.agent_process import AgentProcess, ServerSide  # noqa: E402
from tests.fakes.brokers import mosquitto  # noqa: E402
from tests.fakes.trust_fleet import Fleet  # noqa: E402
from tests.fakes.waiting import until  # noqa: E402

MENDER_MIB = 14.4
"""Mender's client (Go), connected and idle."""
MENDER_TO_BARE = 14.4 / 3.2
"""The same against a bare Python beside it, where both were measured."""
WAKE_UPS = 6.0
READINGS = 10


def pss_mib(pid: int) -> float:
    """Proportional set size of one process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def wake_ups(pid: int) -> dict[str, int]:
    """Voluntary context switches so far, by thread."""
    counts = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        count = next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
        counts[f"{(task / 'comm').read_text().strip()}-{task.name}"] = count
    return counts


def measure(seconds: float) -> tuple[float, float, float, dict[str, float]]:
    """PSS of the agent and of a bare Python in MiB, wake-ups a minute in all and by thread."""
    with tempfile.TemporaryDirectory() as scratch, mosquitto(Path(scratch)) as broker:
        os.environ |= {"PYTHONPYCACHEPREFIX": f"{scratch}/bytecode"}
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        fleet = Fleet()
        fleet.publish()
        fleet.assignment()
        fleet.manifest()
        agent = AgentProcess(Path(scratch) / "agent", broker.url, fleet, settings="[intervals]\nheartbeat_s = 60\n")
        agent.init()
        server = ServerSide(broker, fleet)
        server.publish_all()
        agent.start()  # compiles what is not compiled yet
        until(lambda: server.newest("node-1", "state").get("sequence") == fleet.sequence, deadline_s=60)
        agent.kill(signal.SIGTERM)
        agent.start()
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]) as bare:
            try:
                before = len(server.heard("node-1", "report"))
                until(lambda: len(server.heard("node-1", "report")) > before, deadline_s=60)
                time.sleep(10)
                began_s, counted = time.monotonic(), wake_ups(agent.pid)
                readings = []
                for _ in range(READINGS):
                    time.sleep(seconds / READINGS)
                    readings.append((pss_mib(agent.pid), pss_mib(bare.pid)))
                minutes = (time.monotonic() - began_s) / 60
                later = wake_ups(agent.pid)
            finally:
                bare.kill()
                agent.kill(signal.SIGTERM)
                server.close()
    by_thread = {name: (count - counted.get(name, 0)) / minutes for name, count in later.items()}
    resident, beside = (statistics.median(column) for column in zip(*readings, strict=True))
    return resident, beside, sum(by_thread.values()), by_thread


def main() -> int:
    """Exit status 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long to watch (180)")
    resident, bare, wakes, by_thread = measure(parser.parse_args().seconds)
    rows = [
        ("agent PSS, MiB", resident, MENDER_MIB),
        ("agent PSS / bare Python PSS", resident / bare, MENDER_TO_BARE),
        ("wake-ups a minute", wakes, WAKE_UPS),
    ]
    print(f"bare Python PSS, MiB           {bare:8.2f}")
    for name, value, bar in rows:
        print(f"{name:<30} {value:8.2f}   bar {bar:6.2f}   {'ok' if value <= bar else 'MISSED'}")
    for name, value in sorted(by_thread.items(), key=lambda item: -item[1]):
        print(f"  {name:<28} {value:8.2f}")
    return 0 if all(value <= bar for _, value, bar in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
