"""A reserved port is nobody else's, not even in the moment in which nothing listens on it."""

import socket
import struct

import pytest

from tests.fakes.ports import HOST, reserved_port, reserved_ports

IP_LOCAL_PORT_RANGE = 51
"""Linux 6.3: from where the kernel may choose; with one port in it, the choice is made at once. See ip(7)."""


def choosing(port: int, *, reuse: bool) -> socket.socket:
    """A socket for which the kernel can choose nothing but this port."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    try:
        made.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", port << 16 | port))
    except OSError:
        made.close()
        pytest.skip("this kernel is older than 6.3")
    return made


@pytest.mark.parametrize("reuse", [False, True])
def test_the_kernel_gives_it_to_no_server_that_lets_it_choose(reuse: bool) -> None:
    with reserved_port() as port, choosing(port, reuse=reuse) as other, pytest.raises(OSError, match="in use"):
        other.bind((HOST, 0))
    with choosing(port, reuse=reuse) as other:
        other.bind((HOST, 0))
        assert other.getsockname()[1] == port, "the test itself: without the reservation it would"


def test_the_kernel_gives_it_to_no_connection() -> None:
    with (
        socket.create_server((HOST, 0)) as server,
        reserved_port() as port,
        choosing(port, reuse=False) as other,
        pytest.raises(OSError, match="Cannot assign"),
    ):
        other.connect(server.getsockname())


def test_its_own_server_may_come_and_go() -> None:
    with reserved_port() as port:
        for _ in range(3):
            with socket.create_server((HOST, port)), socket.create_connection((HOST, port)):
                pass
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((HOST, port))


def test_several_are_different() -> None:
    with reserved_ports(5) as ports:
        assert len(set(ports)) == 5
