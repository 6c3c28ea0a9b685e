"""Processor, memory, disk, load, temperature and network of this machine, by psutil."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_FRESH_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Disk:
    """How full a file system is. `inodes_percent` is None where it has no bound on files."""

    device: int
    """Its number: two paths of one number are on one file system."""
    percent: float
    free_bytes: float
    inodes_percent: float | None


def read_disk(path: Path) -> Disk | None:
    """The file system of `path`, or None where that can not be read (statvfs(3))."""
    try:
        usage, found, device = psutil.disk_usage(str(path)), os.statvfs(path), path.stat().st_dev
    except OSError:
        return None
    inodes = 100.0 * (found.f_files - found.f_favail) / found.f_files if found.f_files else None
    return Disk(device, float(usage.percent), float(usage.free), inodes)


class MachineProbe:
    """Reads the machine; percentages of the processor are over the time since the last reading."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._self = psutil.Process()
        self._newest: tuple[float, Mapping[str, float]] | None = None
        psutil.cpu_percent(interval=None)

    def read(self) -> Mapping[str, float]:
        """Flat numbers, units last in their names; what this machine does not have is left out.

        Within a second the same reading is given again: over so short a time the processor's share means nothing.
        """
        now_s = time.monotonic()
        if self._newest is None or now_s - self._newest[0] >= _FRESH_S:
            self._newest = (now_s, self._read())
        return self._newest[1]

    def _read(self) -> Mapping[str, float]:
        memory, disk, network = psutil.virtual_memory(), self._disk(), psutil.net_io_counters()
        values = {
            "cpu_percent": float(psutil.cpu_percent(interval=None)),
            "memory_percent": float(memory.percent),
            "memory_available_bytes": float(memory.available),
            "processes": float(len(psutil.pids())),
            "agent_memory_bytes": float(self._self.memory_info().rss),
        }
        values |= dict(zip(("load_1", "load_5", "load_15"), os.getloadavg(), strict=True))
        if disk is not None:
            values |= {"disk_percent": disk.percent, "disk_free_bytes": disk.free_bytes}
            if disk.inodes_percent is not None:
                values["inodes_percent"] = disk.inodes_percent
        if network is not None:
            values |= {
                "network_sent_bytes": float(network.bytes_sent),
                "network_received_bytes": float(network.bytes_recv),
            }
        temperature = _temperature_celsius()
        return values if temperature is None else values | {"temperature_celsius": temperature}

    def _disk(self) -> "Disk | None":
        """The file system where the state lives."""
        return read_disk(self._state_dir)


def _temperature_celsius() -> float | None:
    """The hottest sensor."""
    try:
        sensors = psutil.sensors_temperatures()
    except (OSError, ValueError):
        return None
    readings = [float(sensor.current) for group in sensors.values() for sensor in group if sensor.current]
    return max(readings, default=None)


def cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) or 1


def running_names() -> set[str]:
    """Names of all processes, as the kernel has them (at most 15 characters)."""
    names: set[str] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                names.add((entry / "comm").read_text(encoding="utf-8", errors="replace").strip())
            except OSError:
                continue  # it has ended since
    return names
