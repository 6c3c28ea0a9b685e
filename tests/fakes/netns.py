"""A network of devices on one machine that touches no other: namespaces around a bridge.

with Hub() as hub:
    name = hub.join("node-1", 1)   # a namespace with address 10.77.0.11, for a container
    with hub.entered():            # sockets and processes made here are at 10.77.0.1
        ...
    hub.cut("node-1")              # the cable is out
"""

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

ADDRESS = "10.77.0.1"
"""Of the hub, where the test's servers listen."""
_NEW_NET = 0x40000000
"""CLONE_NEWNET of linux/sched.h."""
_NUMBERS = itertools.count()


def address_of(number: int) -> str:
    """The address of the device that joined with this number."""
    return f"10.77.0.{10 + number}"


class Hub:
    """The network that the servers are in. Names are this process's own, so that test runs do not meet."""

    def __init__(self) -> None:
        self.name = f"fl-{os.getpid()}-{next(_NUMBERS)}"
        self._devices: dict[str, tuple[str, str]] = {}
        _ip("netns", "add", self.name)
        _batch(
            self.name,
            "link set lo up",
            "link add hub type bridge forward_delay 0",
            f"address add {ADDRESS}/24 dev hub",
            "link set hub up",
        )

    def join(self, device: str, number: int) -> str:
        """A namespace with one cable to the hub; returns its name."""
        name, port = f"{self.name}-{number}", f"port{number}"
        _ip("netns", "add", name)
        self._devices[device] = (name, port)
        _batch(
            self.name,
            f"link add {port} type veth peer name eth0 netns {name}",
            f"link set {port} master hub up",
        )
        _batch(name, "link set lo up", f"address add {address_of(number)}/24 dev eth0", "link set eth0 up")
        return name

    def cut(self, device: str) -> None:
        """Nothing gets through any more, and nobody is told."""
        _ip("-n", self.name, "link", "set", self._devices[device][1], "nomaster")

    def mend(self, device: str) -> None:
        """The cable is in again."""
        _ip("-n", self.name, "link", "set", self._devices[device][1], "master", "hub")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread opens and starts in the block is in the hub's namespace, and stays there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(Path("/run/netns") / self.name)
            yield
        finally:
            _set(before)
            os.close(before)

    def close(self) -> None:
        """All of it is gone."""
        names = (*(name for name, _ in self._devices.values()), self.name)
        subprocess.run(
            ["ip", "-batch", "-"], input="".join(f"netns delete {name}\n" for name in names), text=True, check=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _enter(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set(descriptor)
    finally:
        os.close(descriptor)


def _set(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _NEW_NET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _batch(namespace: str, *lines: str) -> None:
    argv = ["ip", "-n", namespace, "-batch", "-"]
    subprocess.run(argv, input="".join(f"{line}\n" for line in lines), text=True, check=True, capture_output=True)
