"""One agent for one state directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from device_agent.adapters.state_folders import make_state_dir
from fleet_protocol.errors import PolicyError


@contextmanager
def state_lock(state_dir: Path) -> Iterator[None]:
    """Hold the directory for the block; the kernel gives it back however this process ends.

    Raises PolicyError `setup`, in one line, where another agent holds it or it can not be made.
    """
    try:
        make_state_dir(state_dir)
        descriptor = os.open(state_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PolicyError("setup", f"{state_dir} can not be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise PolicyError("setup", f"an agent already runs on {state_dir} (process {holder})") from None
        with suppress(OSError):  # on a full disk nobody is told who holds it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
