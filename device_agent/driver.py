"""Drives the machine: an event in, the record on disk, and only then the effects."""

from collections import deque
from collections.abc import Callable
from typing import Final

from device_agent.clock import Clock
from device_agent.core.effects import Effect
from device_agent.core.events import Event, Ticked
from device_agent.core.record import Record
from device_agent.log import Log
from device_agent.ports import Journal
from fleet_protocol.errors import FleetError

Step = Callable[[Record, Event], tuple[Record, tuple[Effect, ...]]]
Noted = Callable[[Event, Record], None]
"""Told the event and the record before it, once the record after it is on disk and before its effects are run."""
_TICK_S: Final = 0.2
"""Least time between two ticks, whatever the record asks for."""
_SAVE_AGAIN_S: Final = 5.0


class Driver:
    """Holds the record. While the journal can not be written, events wait in order and nothing is done."""

    def __init__(
        self,
        record: Record,
        step: Step,
        journal: Journal,
        *,
        noted: Noted,
        act: Callable[[Effect], None],
        clock: Clock,
        log: Log,
    ) -> None:
        self.record = record
        self._step, self._journal, self._noted, self._act = step, journal, noted, act
        self._clock, self._log = clock, log
        self._backlog: deque[Event] = deque()
        self.trouble: str | None = None
        """Why the record can not be written, which holds up everything; None while it can."""
        self._save_again_s = 0.0
        self._ticked_s = 0.0
        self._draining = False

    def apply(self, happened: Event) -> bool:
        """Take the event to the machine. False where what it led to is not on disk yet."""
        self._backlog.append(happened)
        self.tend()
        return happened not in self._backlog

    def wake_s(self) -> float | None:
        """When the machine wants a tick, or the journal another try."""
        if self._backlog:
            return self._save_again_s
        wake_s = self.record.wake_s
        return None if wake_s is None else max(wake_s, self._ticked_s + _TICK_S)

    def tick(self) -> None:
        """Tell the machine that time has passed, where it wants to know."""
        wake_s, now_s = self.wake_s(), self._clock.mono_s()
        if wake_s is None or now_s < wake_s:
            return
        if self._backlog:
            self.tend()
        else:
            self._ticked_s = now_s
            self.apply(Ticked(at=self._clock.moment()))

    def tend(self) -> None:
        """Work off what waits, oldest first. An event that an effect brings about comes after the effects."""
        if self._draining:
            return
        self._draining = True
        try:
            while self._backlog and self._clock.mono_s() >= self._save_again_s and self._advance(self._backlog[0]):
                pass
        finally:
            self._draining = False

    def _advance(self, happened: Event) -> bool:
        record, effects = self._step(self.record, happened)
        if record != self.record and not self._saved(record):
            self._save_again_s = self._clock.mono_s() + _SAVE_AGAIN_S
            return False
        self._backlog.popleft()
        before, self.record = self.record, record
        self._noted(happened, before)
        for effect in effects:
            self._act(effect)
        return True

    def _saved(self, record: Record) -> bool:
        try:
            self._journal.save(record)
        except (OSError, FleetError) as error:
            self.trouble = f"{error}"[:1_000]
            self._log.error("journal", f"the record can not be written, nothing goes on before it is: {error}")
            return False
        self.trouble = None
        return True
