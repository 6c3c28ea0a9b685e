"""One worker at a time, the rest in line: the loop has a lane for documents and one for the attempt."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from device_agent.inbox import Inbox
from device_agent.ports import Worker

Answer = Mapping[str, Any]
Done = Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One effect to run; `done` is called by the loop with the worker's answer."""

    op: str
    args: Mapping[str, Any]
    done: Done


class Lane:
    """Used by the loop only; the worker's answers come back through the inbox."""

    def __init__(self, worker: Worker, inbox: Inbox) -> None:
        self._worker, self._inbox = worker, inbox
        self._line: deque[Job] = deque()
        self._running: Job | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return self._running is None and not self._line

    def add(self, op: str, args: Mapping[str, Any], done: Done) -> None:
        """Run `op` after what is already in line."""
        self._line.append(Job(op, args, done))
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
            self._next()
