"""Tells the resident that a long operation goes on, for as long as it goes from one step to the next.

What an update takes in all depends on the release: how many parts it has, how long each takes to stop, how many
packages there are to fetch. Each single step ends in bounded time, and begins with a program that is started, a file
that is opened or a host that is looked for. The interpreter notices all of those (sys.addaudithook, PEP 578), so that
no installer has to say anything. A step that never ends is silence.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

LIFE_S: Final = 30.0
"""How often a sign of life is given; far more often than the resident takes for silence."""


class Steps:
    """Gives signs of life for the steps that it is told of."""

    def __init__(self, alive: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._alive, self._clock = alive, clock
        self._said_s = clock()

    def begun(self) -> None:
        """One more step; said at most once in `LIFE_S`."""
        now_s = self._clock()
        if now_s - self._said_s >= LIFE_S:
            self._said_s = now_s
            self._alive()


def follow_steps(alive: Callable[[], None]) -> None:
    """Call `alive` for the steps of this thread, for the rest of the process's life."""
    steps, thread = Steps(alive), threading.get_ident()

    def noticed(_event: str, _args: tuple[Any, ...]) -> None:
        if threading.get_ident() == thread:
            steps.begun()

    sys.addaudithook(noticed)
