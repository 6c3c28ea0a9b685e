"""Makes the machine's reports into signed envelopes, one after the other, by the worker that has the key."""

from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from device_agent.clock import Clock
from device_agent.core.backoff import delay_s
from device_agent.core.record import PendingReport, Record
from device_agent.core.reports import installed
from device_agent.lane import Answer, Lane
from device_agent.log import Log
from device_agent.operations import fault
from device_agent.outbox_pump import OutboxPump
from device_agent.settings import AgentSettings
from fleet_protocol import PROTOCOL_VERSION
from fleet_protocol.messages import Report
from fleet_protocol.timestamps import format_time

REPORT_TYPE: Final = "application/vnd.fairlead.report.v1+json"
"""As in `fleet_protocol.envelope`, which the resident does not import; a test compares them."""


class Reporter:
    """Used by the loop only. What is not signed yet is in the record too, so nothing is lost with this process.

    What the record drops is not signed either: past `core.reports.PENDING` the oldest without an outcome goes first.
    """

    def __init__(
        self,
        settings: AgentSettings,
        lane: Lane,
        pump: OutboxPump,
        *,
        boot: str,
        queued: Callable[[int], None],
        clock: Clock,
        log: Log,
    ) -> None:
        """`queued` is told the counter of every report that is safe in the outbox."""
        self._settings, self._lane, self._pump, self._boot = settings, lane, pump, boot
        self._queued, self._clock, self._log = queued, clock, log
        self._line: deque[PendingReport] = deque()
        self._signing = False
        self._failures = 0
        self._until_s = 0.0

    def add(self, pending: PendingReport) -> None:
        """Sign this one too, once; the machine may ask twice."""
        if all(pending.counter != one.counter for one in self._line):
            self._line.append(pending)

    def wake_s(self) -> float | None:
        """When the next try at signing is due."""
        return self._until_s if self._line and not self._signing else None

    def tend(self, record: Record) -> None:
        """Have the oldest signed, unless one is being signed or a backoff runs."""
        kept = {pending.counter for pending in record.pending}
        self._line = deque(pending for pending in self._line if pending.counter in kept)
        if not self._line or self._signing or self._clock.mono_s() < self._until_s:
            return
        self._signing = True
        pending = self._line[0]
        report = build(self._settings, self._boot, record, pending)
        payload = {"_type": Report.TYPE, "v": PROTOCOL_VERSION, **asdict(report)}
        self._lane.add("sign", {"payload": payload, "type": REPORT_TYPE}, lambda answer: self._signed(pending, answer))

    def _signed(self, pending: PendingReport, answer: Answer) -> None:
        self._signing = False
        if not answer.get("ok"):
            self._back_off("{}: {}".format(*fault(answer)))
        elif self._pump.put(pending.counter, str(answer["result"]["envelope"]).encode()):
            self._failures = 0
            self._line = deque(one for one in self._line if one is not pending)
            self._queued(pending.counter)
        else:
            self._back_off("the outbox could not be written")

    def _back_off(self, why: str) -> None:
        self._log.error("sign", f"a report waits: {why}")
        self._failures += 1
        moment = self._clock.moment()
        pause_s = delay_s(self._failures, moment.luck, most_s=self._settings.intervals.retry_most_s)
        self._until_s = moment.mono_s + pause_s


def build(settings: AgentSettings, boot: str, record: Record, pending: PendingReport) -> Report:
    """The statement: what was decided when the report became due, and what is installed now."""
    return Report(
        fleet=settings.fleet,
        device=settings.device,
        boot=boot,
        counter=pending.counter,
        time=format_time(pending.wall_s),
        group=record.group,
        sequence=record.obeyed,
        root=0 if record.plan is None else record.plan.root,
        installed=installed(record),
        attempt=pending.attempt,
        attack=pending.attack,
        attacks=dict(record.attacks),
        why=record.why,
    )
