"""Waiting in tests for what comes from another thread or process and can not be awaited otherwise."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE_S = 30.0


def until(ask: Callable[[], T], *, deadline_s: float = DEADLINE_S, pause_s: float = 0.01) -> T:
    """The first true answer of `ask`, asked every `pause_s`; AssertionError with the last one at the end."""
    end_s = time.monotonic() + deadline_s
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < end_s, f"still {answer!r} after {deadline_s} s"
        time.sleep(pause_s)
