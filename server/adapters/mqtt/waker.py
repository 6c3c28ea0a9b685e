"""Wakes a thread that waits in `select`."""

import contextlib
import selectors
import socket
import threading


class Waker:
    """Any thread may `wake` the one that waits; many wakes before it looks are one."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        for end in (self._near, self._far):
            end.settimeout(0)
        self._lock = threading.Lock()
        self._awake = False

    def wake(self) -> None:
        """Make the waiting thread return from `select`; never blocks, and does nothing after `close`."""
        if self._awake:
            return
        with self._lock:
            if not self._awake:
                self._awake = True
                self._far.send(b"\0")

    def clear(self) -> None:
        """Take note of all wakes so far. Look at what they were about only after this."""
        with contextlib.suppress(BlockingIOError):
            self._near.recv(4_096)
        self._awake = False

    def register(self, selector: selectors.BaseSelector) -> None:
        """Let `selector` return when this is woken."""
        selector.register(self._near, selectors.EVENT_READ)

    def close(self) -> None:
        """Release both ends; only the thread that waits may call it, once it waits no more."""
        with self._lock:
            self._awake = True
            self._near.close()
            self._far.close()
