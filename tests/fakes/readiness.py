"""Starting a server process and knowing when it is ready, because it says so (sd_notify(3))."""

import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_START_S = 30.0
_LOOK_S = 1.0


class DidNotStartError(Exception):
    """The end of the process's log."""


def start(argv: Sequence[Any], log: Path, serves: Callable[[], bool], **how: Any) -> "subprocess.Popen[bytes]":
    """The running process, once it is ready; what it writes goes to `log`. Raises DidNotStartError.

    `serves` is asked now and then, for builds that know nothing of systemd's protocol.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, log.open("ab") as output:
        notices.bind("")  # the kernel chooses a name in the abstract namespace (unix(7))
        environment = {**os.environ, "NOTIFY_SOCKET": "@" + notices.getsockname()[1:].decode()}
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, **how)
        if _ready(process, notices, serves):
            return process
        process.kill()
        process.wait()
    raise DidNotStartError(log.read_text(errors="replace")[-2_000:])


def _ready(process: "subprocess.Popen[bytes]", notices: socket.socket, serves: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + _START_S
    poll, pidfd = select.poll(), os.pidfd_open(process.pid)
    poll.register(notices, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    try:
        while time.monotonic() < end_s:
            news = [descriptor for descriptor, _ in poll.poll(_LOOK_S * 1_000)]
            if pidfd in news:
                return False
            if b"READY=1" in notices.recv(4_096) if news else serves():
                return True
    finally:
        os.close(pidfd)
    return False
