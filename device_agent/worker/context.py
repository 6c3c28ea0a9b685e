"""What an operation may ask of the process that it runs in."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from device_agent.settings import AgentSettings


def _no_progress(_: float) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """Handed to every operation."""

    settings: AgentSettings
    want: Callable[[str], bytes | None]
    """The retained payload of a topic, or None where the broker holds none; raises TransportError."""
    progress: Callable[[float], None] = _no_progress
    """Tells how much of the operation is done, 0 to 1."""
    clock: Callable[[], float] = time.time
    """Epoch seconds."""
