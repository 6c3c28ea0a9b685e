"""Bad links between network namespaces: delay, loss, duplicates, rate and cuts, without the kernel's traffic control.

Each end of a link is a TAP device in a namespace of its own; this process carries the frames between them and treats
them as the test asks (tun(4), network_namespaces(7)). Needs root, iproute2 and /dev/net/tun.
"""

import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_CLONE_NEWNET: Final = 0x40000000
_TUNSETIFF: Final = 0x400454CA
_TAP, _NO_PACKET_INFO = 0x0002, 0x1000
_FRAME_MOST: Final = 65_536
_BURST: Final = 64


def missing() -> str | None:
    """Why links can not be had here, or None."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if shutil.which("ip") is None or not Path("/dev/net/tun").exists():
        return "needs iproute2 and /dev/net/tun"
    probe = subprocess.run(["ip", "netns", "list"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "network namespaces can not be had here"


@dataclass
class Weather:
    """What happens to frames on one link, both ways. Change it at any time."""

    delay_s: float = 0.0
    loss: float = 0.0
    duplicates: float = 0.0
    rate_bytes_s: float | None = None
    up: bool = True
    seed: int = 1
    carried: int = 0
    lost: int = 0
    connections: int = 0
    """TCP connections that were begun (SYN without ACK), repeats of the kernel's own included."""
    carried_bytes: int = 0
    _dice: random.Random = field(init=False)
    _free_s: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def arrivals(self, way: int, frame: bytes, now_s: float) -> list[float]:
        """When the frame comes out at the other end: never, once or twice."""
        self.connections += _begins_connection(frame)
        if not self.up or self._dice.random() < self.loss:
            self.lost += 1
            return []
        self.carried, self.carried_bytes = self.carried + 1, self.carried_bytes + len(frame)
        at_s = now_s
        if self.rate_bytes_s is not None:
            at_s = self._free_s[way] = max(self._free_s.get(way, now_s), now_s) + len(frame) / self.rate_bytes_s
        at_s += self.delay_s
        return [at_s, at_s] if self._dice.random() < self.duplicates else [at_s]


def _begins_connection(frame: bytes) -> bool:
    """A TCP segment over IPv4 with SYN and without ACK (RFC 9293, 3.1)."""
    if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return False
    start = 14 + (frame[14] & 0x0F) * 4
    return len(frame) > start + 13 and frame[start + 13] & 0x12 == 0x02


class Links:
    """Namespaces and the links between them; a thread carries the frames."""

    def __init__(self) -> None:
        self._name = f"fl{os.getpid()}"
        self._spaces: list[str] = []
        self._ways: dict[int, tuple[Weather, int]] = {}
        self._due: list[tuple[float, int, int, bytes]] = []
        self._order = itertools.count()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ended = False
        self._thread = threading.Thread(target=self._carry, name="links", daemon=True)
        self._thread.start()

    def space(self, name: str) -> str:
        """A new namespace, whose loopback is up; returns the name by which `ip netns exec` knows it."""
        full = f"{self._name}-{name}"
        _ip("netns", "add", full)
        self._spaces.append(full)
        _ip("-n", full, "link", "set", "lo", "up")
        return full

    def link(self, one: str, one_address: str, other: str, other_address: str) -> Weather:
        """Join two namespaces; addresses are like 10.77.0.1/24."""
        weather = Weather()
        ends = [self._tap(one, one_address), self._tap(other, other_address)]
        self._ways[ends[0]], self._ways[ends[1]] = (weather, ends[1]), (weather, ends[0])
        os.eventfd_write(self._bell, 1)
        return weather

    def close(self) -> None:
        """No namespace and no device is left."""
        self._ended = True
        os.eventfd_write(self._bell, 1)
        self._thread.join()
        for descriptor in (*self._ways, self._bell):
            os.close(descriptor)
        for space in self._spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)

    def _tap(self, space: str, address: str) -> int:
        name = f"t{len(self._ways)}x{len(self._spaces)}p{os.getpid() % 10_000}n{next(self._order)}"[:15]
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _TAP | _NO_PACKET_INFO))
        _ip("link", "set", name, "netns", space)
        _ip("-n", space, "addr", "add", address, "dev", name)
        _ip("-n", space, "link", "set", name, "up")
        return descriptor

    def _carry(self) -> None:
        while not self._ended:
            self._deliver()
            wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 3600.0
            poll = select.poll()
            for descriptor in (self._bell, *self._ways):
                poll.register(descriptor, select.POLLIN)
            for descriptor, _ in poll.poll(wait_s * 1000):
                if descriptor == self._bell:
                    os.eventfd_read(self._bell)
                else:
                    self._take(descriptor)

    def _take(self, descriptor: int) -> None:
        weather, other = self._ways[descriptor]
        for _ in range(_BURST):
            try:
                frame = os.read(descriptor, _FRAME_MOST)
            except (BlockingIOError, OSError):
                return
            for at_s in weather.arrivals(descriptor, frame, time.monotonic()):
                heapq.heappush(self._due, (at_s, next(self._order), other, frame))

    def _deliver(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, other, frame = heapq.heappop(self._due)
            weather = self._ways[other][0]
            if weather.up:
                with _unless_down():
                    os.write(other, frame)


@contextmanager
def _unless_down() -> Iterator[None]:
    """A device that is down, or whose queue is full, drops the frame."""
    try:
        yield
    except OSError:
        return


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def links() -> Iterator[Links]:
    """Links that end with the block."""
    found = Links()
    try:
        yield found
    finally:
        found.close()


@contextmanager
def entered(space: str) -> Iterator[None]:
    """What this thread opens and starts in the block is in the namespace, and stays there (setns(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as home, Path("/run/netns", space).open("rb") as there:
        _set_namespace(libc, there.fileno())
        try:
            yield
        finally:
            _set_namespace(libc, home.fileno())


def _set_namespace(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
