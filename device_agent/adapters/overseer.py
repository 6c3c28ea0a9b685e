"""Tells systemd that the agent is ready, that its loop goes round, and that it ends: sd_notify(3), a datagram each.

1. What systemd wrote into the environment is taken out of it: no worker and no service speaks for the agent.
2. A sign of life is sent when the loop goes round anyway, as soon as a quarter of the time that systemd waits is over;
   the loop is woken for it alone only where nothing woke it for half of that time.
3. Nothing here ever waits or fails: an agent whose overseer does not listen goes on.
"""

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Final

_SOCKET: Final = "NOTIFY_SOCKET"
_PERIOD: Final = "WATCHDOG_USEC"
_WATCHED: Final = "WATCHDOG_PID"


class SystemdOverseer:
    """device_agent.ports.Overseer; says nothing where systemd did not ask. Used by the loop only."""

    def __init__(
        self, environment: MutableMapping[str, str] | None = None, *, mono_s: Callable[[], float] = time.monotonic
    ) -> None:
        variables = os.environ if environment is None else environment
        address, period, watched = (variables.pop(name, "") for name in (_SOCKET, _PERIOD, _WATCHED))
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address.startswith(("/", "@")) else None
        self._mono_s = mono_s
        self._period_s: float | None = None
        if self._socket is not None:
            self._socket.settimeout(0.0)
            if period.isdecimal() and int(period) > 0 and watched in ("", str(os.getpid())):
                self._period_s = int(period) / 1_000_000
        self._said_s = mono_s()

    def ready(self) -> None:
        """The agent does its work now, whether or not a broker is there."""
        self._send("READY=1")
        self._said_s = self._mono_s()

    def alive(self) -> None:
        """The loop went round; rule 2."""
        if self._period_s is not None and self._mono_s() >= self._said_s + self._period_s / 4:
            self._send("WATCHDOG=1")
            self._said_s = self._mono_s()

    def stopping(self) -> None:
        """The agent ends in good order, and may take its time."""
        self._send("STOPPING=1")

    def wake_s(self) -> float | None:
        """When the loop has to go round at the latest."""
        return None if self._period_s is None else self._said_s + self._period_s / 2

    def close(self) -> None:
        """Say nothing any more."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # rule 3
                self._socket.sendto(text.encode("ascii"), self._address)
