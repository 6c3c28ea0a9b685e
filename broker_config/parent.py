"""Ending with the process that started this one."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress


def on_parent_end(act: Callable[[], None]) -> None:
    """Call `act` once in the running event loop when the present parent process has ended.

    A process descriptor is watched (Linux 5.3), so that neither a parent's thread nor a closed
    standard input ends this process. Where the parent has ended already, `act` is called soon.
    """
    loop = asyncio.get_running_loop()
    parent = os.getppid()
    try:
        descriptor = os.pidfd_open(parent)
    except OSError:
        loop.call_soon(act)
        return

    def ended() -> None:
        with suppress(OSError):
            loop.remove_reader(descriptor)
            os.close(descriptor)
            act()

    loop.add_reader(descriptor, ended)
    if os.getppid() != parent:
        loop.call_soon(ended)
