"""TCP ports of loopback that belong to one test for as long as it runs.

A port that the kernel chose and that is then given up may be anybody's a moment later: another test's server, or one
end of some connection. So the test keeps a socket bound to it. That socket never listens and allows its address to be
used again, as every server does on its own side: whoever asks for this very port gets it, and the kernel gives it to
nobody.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

HOST = "127.0.0.1"


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 on which nothing listens but what this test starts there, any number of times."""
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        # Only now: with it before, the kernel might choose a port on which somebody else does the same.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield int(holder.getsockname()[1])


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Several different ones."""
    if count == 0:
        yield []
        return
    with reserved_port() as port, reserved_ports(count - 1) as others:
        yield [port, *others]
