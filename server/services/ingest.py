"""Stores what devices send: one writer, whole batches, and a message is released only when it is stored.

1. A message is acknowledged after the commit that holds it, so that the broker keeps what a power cut would lose.
2. What is malformed, replayed, unsigned or from a stranger is dropped, counted under its code, logged once a burst,
   and acknowledged: it must not come again.
3. One bad message never stops the others. What can be told beforehand is told before the transaction; a batch that
   fails all the same is halved until the culprit stands alone.
4. While the database can not be reached nothing is dropped: the batch is kept and tried again, the inbox fills, and
   the link stops reading.
5. `offline` says that a session ended. It is remembered for people; it is no vote about a release.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from loguru import logger

from fleet_protocol.errors import FleetError, ProtocolError, TransportError
from fleet_protocol.messages import ONLINE, Report
from fleet_protocol.topics import AVAILABILITY, REPLY, REPORT
from server.domain.fleet import AttemptSeen, Device
from server.domain.rollout import Rollout
from server.ports import Incoming, Reading, Store, Work
from server.services.ingest_inbox import Inbox
from server.services.ingest_metrics import IngestMetrics, Tally
from server.services.ingest_reports import ReportDesk, attempt_seen, new_attacks, rebooted, told
from server.services.ingest_screening import Screened, screen


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """How much is taken together and how much may wait. The defaults hold for any broker and any disk."""

    fleet: str
    batch_most: int = 2_000
    enough: int = 20
    """Messages for which a commit does not wait for more: brokers send no more than this without acknowledgement."""
    linger_s: float = 0.01
    waiting_most: int = 20_000
    waiting_most_bytes: int = 64 * 1024 * 1024
    retry_least_s: float = 0.1
    retry_most_s: float = 5.0


class Ingest:
    """The `Intake` of the server, with a thread of its own between `start` and `stop`.

    `on_reply(device, payload)` gets each reply of an enrolled device once its batch is committed; it must not block.
    """

    def __init__(
        self,
        store: Store,
        settings: IngestSettings,
        metrics: IngestMetrics,
        *,
        on_reply: Callable[[str, bytes], object],
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._on_reply = on_reply
        self._luck = luck
        self._desk = ReportDesk(settings.fleet)
        self._inbox = Inbox(most=settings.waiting_most, most_bytes=settings.waiting_most_bytes)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        metrics.watch(self._inbox.__len__)

    def start(self) -> None:
        """Begin to store. May be called once."""
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more, store what waits unless the database can not be reached, and end the thread."""
        self._inbox.close()
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def offer(self, message: Incoming) -> bool:
        """Take a message, or return False where too much waits. An oversized one is dropped at once."""
        kind = message.address.type
        if len(message.payload) > kind.max_size:
            self._metrics.drop(kind.name, "size", f"{len(message.payload)} bytes, at most {kind.max_size} are allowed")
            message.ack()
            return True
        return self._inbox.offer(message)

    def refuse(self, code: str, detail: str) -> None:
        """Count a message that stood on no topic of ours."""
        self._metrics.drop("unknown", code, detail)

    def _run(self) -> None:
        settings = self._settings
        while batch := self._inbox.take(settings.batch_most, enough=settings.enough, linger_s=settings.linger_s):
            self._settle(batch)

    def _settle(self, batch: Sequence[Incoming]) -> None:
        """Store the batch (rules 3 and 4). Returns without doing so only when told to stop."""
        failures = 0
        while True:
            try:
                self._commit(batch)
            except TransportError as error:
                self._metrics.retry(len(batch), error.detail)
                limit_s = min(self._settings.retry_most_s, self._settings.retry_least_s * 2 ** min(failures, 30))
                failures += 1
                if self._stop.wait(self._luck() * limit_s):
                    return
            except Exception as error:  # noqa: BLE001 - whatever one message does to us, the others are stored
                self._halve(batch, error)
                return
            else:
                return

    def _halve(self, batch: Sequence[Incoming], error: Exception) -> None:
        if len(batch) > 1:
            middle = len(batch) // 2
            self._settle(batch[:middle])
            self._settle(batch[middle:])
            return
        culprit = batch[0]
        kind = culprit.address.type.name
        if isinstance(error, FleetError):
            self._metrics.drop(kind, error.code, error.detail)
        else:
            self._metrics.drop(kind, "defect", repr(error))
            logger.opt(exception=error).error("a {} message of {} can not be stored", kind, culprit.address.values)
        culprit.ack()

    def _commit(self, batch: Sequence[Incoming]) -> None:
        started_s = time.monotonic()
        tally = Tally()
        screened = [found for message in batch if (found := _screened(message, tally)) is not None]
        reports, bad = self._open_reports(screened, tally)
        with self._store.begin() as work:
            replies = _Batch(work, [each for each in screened if id(each) not in bad], reports, tally).store()
        self._metrics.add(tally, messages=len(batch), seconds=time.monotonic() - started_s)
        for message in batch:
            message.ack()
        for device, payload in replies:
            self._tell(device, payload)

    def _open_reports(self, screened: Iterable[Screened], tally: Tally) -> tuple[dict[int, Report], set[int]]:
        """Reports that verify under the keys of a snapshot, and those that do not, by the identity of `Screened`."""
        asked = [each for each in screened if each.kind == REPORT.name]
        if not asked:
            return {}, set()
        with self._store.read() as reads:
            devices = reads.devices_by_id({each.device for each in asked})
        opened: dict[int, Report] = {}
        bad: set[int] = set()
        for each in asked:
            device = devices.get(each.device)
            try:
                if device is not None:
                    opened[id(each)] = self._desk.open(each.message.payload, device)
            except ProtocolError as error:
                bad.add(id(each))
                tally.drop(each.kind, error.code, f"{each.device}: {error.detail}")
        return opened, bad

    def _tell(self, device: str, payload: bytes) -> None:
        try:
            self._on_reply(device, payload)
        except Exception:  # noqa: BLE001 - a defect of the listener must not end the writer
            logger.exception("a reply of {} could not be handed over", device)


def _screened(message: Incoming, tally: Tally) -> Screened | None:
    try:
        return screen(message)
    except ProtocolError as error:
        tally.drop(message.address.type.name, error.code, f"{message.address.values['device']}: {error.detail}")
        return None


class _Batch:
    """One batch in one transaction: gathers row by row, then puts each table at once."""

    def __init__(self, work: Work, screened: Sequence[Screened], reports: dict[int, Report], tally: Tally) -> None:
        self._work = work
        self._screened = screened
        self._reports = reports
        self._tally = tally
        self._devices: dict[str, Device] = {}
        self._rollouts: dict[str, Rollout | None] = {}
        self._changed: dict[str, Device] = {}
        self._seen: dict[str, float] = {}
        self._readings: dict[tuple[str, str], Reading] = {}
        self._attempts: dict[tuple[str, str], AttemptSeen] = {}
        self._replies: list[tuple[str, bytes]] = []

    def store(self) -> list[tuple[str, bytes]]:
        """Put everything; returns the replies to hand over after the commit."""
        enrolled = self._work.enrolled({each.device for each in self._screened})
        about_devices = {each.device for each in self._screened if each.kind in (REPORT.name, AVAILABILITY.name)}
        self._devices = self._work.devices_by_id(about_devices & enrolled)
        for each in self._screened:
            if each.device in enrolled:
                self._take(each)
            else:
                self._tally.drop(each.kind, "unknown-node", f"{each.device} is not enrolled")
        self._work.put_devices(list(self._changed.values()))
        self._work.put_readings(list(self._readings.values()))
        self._work.put_attempts(list(self._attempts.values()))
        self._work.touch_devices(list(self._seen.items()))
        return self._replies

    def _take(self, each: Screened) -> None:
        if each.kind == REPORT.name:
            if not self._take_report(each):
                return
        elif each.kind == AVAILABILITY.name:
            device = self._devices[each.device]
            available = each.message.payload == ONLINE
            if device.available != available:
                self._change(replace(device, available=available))
        elif each.kind == REPLY.name:
            self._replies.append((each.device, each.message.payload))
        else:
            message = each.message
            reading = Reading(device=each.device, kind=each.kind, at_s=message.at_s, payload=message.payload)
            self._readings[each.device, each.kind] = reading
        self._tally.stored[each.kind] += 1
        if each.seen_s is not None:
            self._seen[each.device] = max(each.seen_s, self._seen.get(each.device, each.seen_s))

    def _take_report(self, each: Screened) -> bool:
        report = self._reports.get(id(each))
        if report is None:
            self._tally.drop(each.kind, "unknown-node", f"{each.device} was enrolled only just now")
            return False
        device = self._devices[each.device]
        try:
            after = told(device, report)
        except ProtocolError as error:
            self._tally.drop(each.kind, error.code, error.detail)
            return False
        if rebooted(device, report):
            self._tally.reboots += 1
        self._tally.attacks.update(new_attacks(device, report))
        self._change(after)
        attempt = attempt_seen(report, self._rollout_of(report), each.message.at_s)
        if attempt is not None:
            self._attempts[attempt.deployment, attempt.device] = attempt
        return True

    def _change(self, device: Device) -> None:
        self._devices[device.id] = self._changed[device.id] = device

    def _rollout_of(self, report: Report) -> Rollout | None:
        if report.attempt is None:
            return None
        name = report.attempt.deployment
        if name not in self._rollouts:
            self._rollouts[name] = self._work.rollout(name)
        return self._rollouts[name]
