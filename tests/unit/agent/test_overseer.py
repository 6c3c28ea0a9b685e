"""What systemd is told, on a real datagram socket; only time is the test's."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.adapters.overseer import SystemdOverseer


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(0.0)
        self.address, self.now_s = address, 100.0

    def overseer(self, **variables: str) -> SystemdOverseer:
        self.environment = {"NOTIFY_SOCKET": self.address, "PATH": "/bin", **variables}
        return SystemdOverseer(self.environment, mono_s=lambda: self.now_s)

    def heard(self) -> list[str]:
        texts = []
        while True:
            try:
                texts.append(self.socket.recv(100).decode())
            except BlockingIOError:
                return texts


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@fairlead-test-{os.getpid()}"
    systemd = Systemd(address)
    yield systemd
    systemd.socket.close()


def test_readiness_and_the_end_are_told(systemd: Systemd) -> None:
    overseer = systemd.overseer()
    overseer.ready()
    overseer.alive()
    overseer.stopping()
    assert systemd.heard() == ["READY=1", "STOPPING=1"]
    assert overseer.wake_s() is None
    overseer.close()


def test_children_do_not_inherit_what_systemd_told(systemd: Systemd) -> None:
    systemd.overseer(WATCHDOG_USEC="8000000", WATCHDOG_PID=str(os.getpid())).close()
    assert systemd.environment == {"PATH": "/bin"}


def test_signs_of_life_ride_on_the_loops_own_rounds(systemd: Systemd) -> None:
    overseer = systemd.overseer(WATCHDOG_USEC="180000000", WATCHDOG_PID=str(os.getpid()))
    overseer.ready()
    assert overseer.wake_s() == 190.0
    for systemd.now_s in (100.1, 144.9):
        overseer.alive()
    assert systemd.heard() == ["READY=1"]
    systemd.now_s = 160.0
    overseer.alive()
    overseer.alive()
    assert systemd.heard() == ["WATCHDOG=1"]
    assert overseer.wake_s() == 250.0
    overseer.close()


@pytest.mark.parametrize("variables", [{"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_a_watchdog_for_somebody_else_is_left_alone(systemd: Systemd, variables: dict[str, str]) -> None:
    overseer = systemd.overseer(**variables)
    systemd.now_s += 1_000
    overseer.alive()
    assert systemd.heard() == []
    assert overseer.wake_s() is None
    overseer.close()


def test_without_systemd_nothing_is_said() -> None:
    overseer = SystemdOverseer({})
    overseer.ready()
    overseer.alive()
    overseer.stopping()
    assert overseer.wake_s() is None
    overseer.close()


def test_an_overseer_that_is_gone_or_does_not_read_holds_nobody_up(systemd: Systemd) -> None:
    overseer = systemd.overseer()
    for _ in range(5_000):
        overseer.ready()
    systemd.socket.close()
    overseer.stopping()
    overseer.close()
