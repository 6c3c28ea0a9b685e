"""The loop of the resident: whatever happens becomes an event, the machine decides, the shell acts.

1. Everything happens here, in one thread, in the order in which it arrived in the inbox.
2. An event goes through the machine, the record is on disk, and only then are the effects run (`driver`).
3. Nothing is polled: the loop sleeps until something arrives, or until the next moment that somebody named.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from device_agent.announcer import Announcer
from device_agent.clock import Clock
from device_agent.commands import CommandDesk
from device_agent.core.effects import Cancel, Effect, Reply, Report
from device_agent.core.events import Event, Refused, ReportQueued, Started
from device_agent.core.record import Pauses, Record
from device_agent.documents import DocumentDesk, Hearers
from device_agent.driver import Driver, Step
from device_agent.inbox import Inbox
from device_agent.intake import Intake
from device_agent.lane import Answer, Lane
from device_agent.local_api import Handlers
from device_agent.local_desk import LocalDesk
from device_agent.log import Log
from device_agent.operations import Operation, event, fault, operation
from device_agent.outbox_pump import OutboxPump
from device_agent.ports import Journal, Link, Outbox, Overseer, Probes, Services, Spool, Worker
from device_agent.reporter import Reporter
from device_agent.settings import AgentSettings, Intervals
from fleet_protocol import messages, topics
from fleet_protocol.payload import to_payload

_LONGEST_S: Final = 3600.0
_CHANGES_SERVICES: Final = frozenset({"activate", "revert", "commit", "discard"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The outside world, as real or as fake as a test wants it."""

    journal: Journal
    outbox: Outbox
    spool: Spool
    link: Link
    documents: Worker
    """Runs verification and signing."""
    attempts: Worker
    """Runs downloads and installation steps, so that a recall is seen meanwhile."""
    services: Services
    probes: Probes
    overseer: Overseer
    clock: Clock
    log: Log
    boot: str
    """The kernel's name of this boot."""
    kernel: str
    """The kernel's release, as `uname -r` prints it."""


class Agent:
    """The resident process, but for the wiring of its ports. All but `stop` belongs to the loop's thread."""

    def __init__(
        self, settings: AgentSettings, ports: Ports, *, record: Record, step: Step, inbox: Inbox, intake: Intake
    ) -> None:
        self._settings, self._ports, self._inbox, self._link = settings, ports, inbox, ports.link
        self._clock, self._log = ports.clock, ports.log
        self._stopping = False
        clock, log = ports.clock, ports.log
        documents = Lane(ports.documents, inbox)
        self._attempts = Lane(ports.attempts, inbox, beside=documents)
        self._driver = Driver(record, step, ports.journal, noted=self._noted, act=self._act, clock=clock, log=log)
        self._announcer = Announcer(settings, ports.link, ports.probes, clock, log)
        self._pump = OutboxPump(self._topic(topics.REPORT), ports.outbox, ports.link, inbox, log)
        self._reporter = Reporter(
            settings, documents, self._pump, boot=ports.boot, queued=self._queued, clock=clock, log=log
        )
        self._commands = CommandDesk(
            ports.services, self._announcer.health, event=self._driver.apply, reply=self._reply, clock=clock
        )
        self._documents = DocumentDesk(
            intake,
            documents,
            ports.spool,
            Hearers(event=self._driver.apply, command=self._commands.take, group=lambda: self.record.group),
            clock=clock,
            log=log,
            retry_most_s=settings.intervals.retry_most_s,
        )
        self._local = LocalDesk(
            settings,
            ports.services,
            ports.link,
            announcer=self._announcer,
            documents=self._documents,
            record=lambda: self._shown,
            event=self._driver.apply,
            clock=clock,
        )

    @property
    def record(self) -> Record:
        """What the agent remembers."""
        return self._driver.record

    @property
    def _shown(self) -> Record:
        """What is said of the record: where it can not be written, why nothing goes on."""
        trouble = self._driver.trouble
        return self.record if trouble is None else replace(self.record, why=trouble)

    @property
    def handlers(self) -> Handlers:
        """What the local HTTP may ask of the loop."""
        return self._local.handlers()

    def run(self) -> None:
        """Until `stop`: then services are ended where the owner wants that, and `offline` is published."""
        self._begin()
        self._ports.overseer.ready()
        try:
            while not self._stopping:
                happening = self._inbox.take(self._wake_s())
                if happening is not None:
                    happening()
                self._tend()
        finally:
            self._end()

    def stop(self) -> None:
        """End the loop in good order; from any thread and from a signal handler."""
        self._inbox.put(self._stop)

    def connected(self) -> None:
        """The broker is there (again)."""
        self._log.info("link", f"connected to {self._settings.broker.url}")
        self._documents.connected()
        self._pump.connected()
        self._announcer.connected(self._shown)

    def lost(self, why: str) -> None:
        """The broker is gone."""
        self._log.warning("link", f"lost: {why}")

    def progress(self, op: str, share: float) -> None:
        """A worker tells how far it is."""
        if op == "fetch":
            self._announcer.progress(round(share, 3))

    def _stop(self) -> None:
        self._stopping = True

    def _begin(self) -> None:
        self._ports.services.start()
        self._subscribe()
        record = self.record
        if record.group is not None:
            self._documents.remember(self._topic(topics.ASSIGNMENT), topics.ASSIGNMENT)
            if record.plan is not None and record.plan.group == record.group:
                self._documents.remember(self._manifest(record.group), topics.MANIFEST)
        started = Started(at=self._clock.moment(), kernel=self._ports.kernel, pauses=_pauses(self._settings.intervals))
        self._driver.apply(started)
        self._link.start()

    def _end(self) -> None:
        self._ports.overseer.stopping()
        self._attempts.cancel()
        self._ports.services.stop(services_too=self._settings.stop_services_on_exit)
        self._link.stop()

    def _wake_s(self) -> float:
        """Rule 3."""
        parts = (self._driver, self._announcer, self._documents, self._reporter, self._ports.overseer)
        moments = [part.wake_s() for part in parts]
        return min([moment for moment in moments if moment is not None], default=self._clock.mono_s() + _LONGEST_S)

    def _tend(self) -> None:
        """Do whatever is due."""
        self._driver.tick()
        self._documents.look()
        self._reporter.tend(self.record)
        self._announcer.tend(self._shown)
        self._pump.tend()
        self._attempts.tend()
        self._ports.overseer.alive()

    def _noted(self, happened: Event, before: Record) -> None:
        """What the shell itself follows of the record."""
        record = self.record
        if isinstance(happened, Refused):
            self._announcer.note_attack(happened.code)
        if record.group != before.group:
            self._documents.regrouped()
            if before.group is not None:
                self._link.unsubscribe((self._manifest(before.group),))
            if record.group is not None:
                self._link.subscribe((self._manifest(record.group),))
        if record.stage != before.stage:
            self._announcer.progress(None)
            self._log.info("stage", f"{record.stage}: {record.why}")

    def _act(self, effect: Effect) -> None:
        if isinstance(effect, Report):
            self._reporter.add(effect.report)
        elif isinstance(effect, Reply):
            self._reply(messages.Reply(id=effect.id, code=effect.code, detail=effect.detail, result={}))
        elif isinstance(effect, Cancel):
            self._attempts.cancel()
        else:
            wanted = operation(effect, self.record)
            if wanted is not None:
                self._attempts.add(wanted.op, wanted.args, self._ended(wanted))

    def _ended(self, done: Operation) -> Callable[[Answer], None]:
        """What follows when a worker effect has ended."""

        def ended(answer: Answer) -> None:
            if not answer.get("ok"):
                code, detail = fault(answer)
                self._log.warning(code, f"{done.op} {done.subject}: {detail}")
            if done.op in _CHANGES_SERVICES:
                self._ports.services.refresh()
            happened = event(done, answer, self._clock.moment())
            if happened is not None:
                self._driver.apply(happened)

        return ended

    def _queued(self, counter: int) -> None:
        self._driver.apply(ReportQueued(at=self._clock.moment(), counter=counter))

    def _reply(self, reply: messages.Reply) -> None:
        """To whoever asked: a request on this device, or the broker."""
        if not self._local.take_reply(reply):
            payload = to_payload(reply)
            self._link.publish(self._topic(topics.REPLY), payload, qos=topics.REPLY.qos, retain=topics.REPLY.retain)

    def _subscribe(self) -> None:
        names = self._settings.topics
        filters = [self._topic(topics.ASSIGNMENT), self._topic(topics.COMMAND)]
        if self.record.group is not None:
            filters.append(self._manifest(self.record.group))
        self._link.subscribe((*filters, names.filter(topics.ROOT), names.of(topics.TIMESTAMP)))

    def _topic(self, kind: topics.TopicType) -> str:
        return self._settings.topics.of(kind, device=self._settings.device)

    def _manifest(self, group: str) -> str:
        return self._settings.topics.of(topics.MANIFEST, group=group)


def _pauses(intervals: Intervals) -> Pauses:
    return Pauses(check_least_s=intervals.check_s or 0.0, retry_most_s=intervals.retry_most_s)
