"""One worker at a time, the rest in line: the loop has a lane for documents and one for the attempt.

A worker that moves an artifact and one that verifies or signs are both large. The lane of the attempt therefore begins
the former only while the lane of the documents is idle; a document that comes later waits for nothing.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from device_agent.inbox import Inbox
from device_agent.ports import Worker

Answer = Mapping[str, Any]
Done = Callable[[Answer], None]
_LARGE: Final = frozenset({"fetch", "stage"})


@dataclass(frozen=True, slots=True)
class Job:
    """One effect to run; `done` is called by the loop with the worker's answer."""

    op: str
    args: Mapping[str, Any]
    done: Done


class Lane:
    """Used by the loop only; the worker's answers come back through the inbox."""

    def __init__(self, worker: Worker, inbox: Inbox, *, beside: "Lane | None" = None) -> None:
        """Large operations of this lane begin in `tend`, and only while the lane `beside` it is idle."""
        self._worker, self._inbox, self._beside = worker, inbox, beside
        self._line: deque[Job] = deque()
        self._running: Job | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return self._running is None and not self._line

    def add(self, op: str, args: Mapping[str, Any], done: Done) -> None:
        """Run `op` after what is already in line."""
        self._line.append(Job(op, args, done))
        if not self._patient():
            self._next()

    def tend(self) -> None:
        """Begin what waits for the other lane, once whatever else was due has begun."""
        if self._beside is None or self._beside.idle:
            self._next()

    def cancel(self) -> None:
        """Kill what runs and forget what waits; none of their `done` is called."""
        self._line.clear()
        if self._running is not None:
            self._running = None
            self._worker.cancel()

    def _next(self) -> None:
        if self._running is None and self._line:
            job = self._running = self._line.popleft()
            self._worker.submit(job.op, job.args, lambda answer: self._inbox.put(lambda: self._end(job, answer)))

    def _end(self, job: Job, answer: Answer) -> None:
        if self._running is not job:
            return  # cancelled after it had answered
        self._running = None
        try:
            job.done(answer)
        finally:
            if not self._patient():
                self._next()

    def _patient(self) -> bool:
        return self._beside is not None and bool(self._line) and self._line[0].op in _LARGE
