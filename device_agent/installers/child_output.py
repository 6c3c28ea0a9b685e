"""What a child process says until it ends.

1. Its own end is what is waited for: what it leaves running may hold its pipes for ever.
2. Of each pipe only the end is kept, whatever comes through it.
"""

import fcntl
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

_ERRORS_MOST: Final = 64 * 1024


class _Tail:
    """The last bytes of one pipe."""

    def __init__(self, stream: IO[bytes], most_bytes: int) -> None:
        self.descriptor, self._most = stream.fileno(), most_bytes
        self.kept = bytearray()
        self._holds = fcntl.fcntl(self.descriptor, fcntl.F_GETPIPE_SZ)
        os.set_blocking(self.descriptor, False)

    def take(self) -> bool:
        """Keep what is there now, which is all that a writer had said before it ended. False at the pipe's end."""
        try:
            data = os.read(self.descriptor, self._holds)
        except BlockingIOError:
            return True
        self.kept += data
        del self.kept[: -self._most]
        return bool(data)


def output_until_end(process: "subprocess.Popen[bytes]", timeout_s: float, most_bytes: int) -> list[bytearray] | None:
    """The end of the child's output, and of its errors where they have a pipe too; None where it does not end in time.

    It is left to be reaped, so that its id stays its own, and running where it does not end.
    """
    deadline_s = time.monotonic() + timeout_s
    pipes = ((process.stdout, most_bytes), (process.stderr, _ERRORS_MOST))
    tails = [_Tail(stream, most) for stream, most in pipes if stream is not None]
    with _watched(process.pid) as end:
        poller = select.poll()
        for descriptor in (end, *(tail.descriptor for tail in tails)):
            poller.register(descriptor, select.POLLIN)
        while (left_s := deadline_s - time.monotonic()) > 0:
            ready = dict(poller.poll(left_s * 1000))
            if end in ready:
                for tail in tails:
                    tail.take()
                return [tail.kept for tail in tails]
            for tail in tails:
                if tail.descriptor in ready and not tail.take():
                    poller.unregister(tail.descriptor)
    return None


@contextmanager
def _watched(pid: int) -> Iterator[int]:
    """What becomes readable when the process ends (pidfd_open(2))."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
