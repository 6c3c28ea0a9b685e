"""The desk where documents from strangers become verified facts, one at a time, by workers.

1. A worker is started for strangers' bytes only with a token; what turns out good gives its token back. So a flood of
   bad documents costs a few workers a minute and nothing else, and the newest good one gets its turn. What is dropped
   at once costs no worker, and is counted by tokens of its own.
2. A protocol fault is the document's: refused, counted, reported, remembered. Any other fault is ours or the
   network's: the document waits on and is looked at again after a backoff. So does one that was refused where the
   worker says when it may be offered again: newer keys may have signed it.
3. New trust documents, and every new connection, are a reason to look again at what is obeyed now. Looking again waits
   for one document at the most, and a manifest stands in for it only if it was good.
4. A worker that dies three times over one document does so because of it.
5. The spool only spares work. A verdict stands where its file can not be moved; a document that can not be read there
   counts as none, and comes again from the broker.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from device_agent.bucket import TokenBucket
from device_agent.clock import Clock
from device_agent.core.backoff import delay_s
from device_agent.core.codec import from_json
from device_agent.core.events import Accepted, Assigned, Event, Refused
from device_agent.core.plan import Plan
from device_agent.intake import Intake, Waiting, digest_of
from device_agent.lane import Answer, Lane
from device_agent.log import Log
from device_agent.operations import fault
from device_agent.ports import Spool
from fleet_protocol import topics
from fleet_protocol.errors import CODES, Fault, FleetError
from fleet_protocol.ids import shown
from fleet_protocol.topics import TopicType

Judged = Callable[[str | None, str], None]
"""Told the code, None for good, and a detail."""
_DEATHS_MOST: Final = 3


@dataclass(slots=True)
class _Pause:
    """Why documents of one kind wait on."""

    failures: int
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearers:
    """Who is told what the desk finds out."""

    event: Callable[[Event], bool]
    """Takes an event to the machine; False where it could not be remembered."""
    command: Callable[[Mapping[str, Any]], None]
    """A verified command: id, name, package, service, lines."""
    group: Callable[[], str | None]
    """The group that the device obeys."""


class DocumentDesk:
    """Used by the loop only."""

    def __init__(
        self, intake: Intake, lane: Lane, spool: Spool, hearers: Hearers, *, clock: Clock, log: Log, retry_most_s: float
    ) -> None:
        self._intake, self._lane, self._spool, self._hearers = intake, lane, spool, hearers
        self._clock, self._log, self._retry_most_s = clock, log, retry_most_s
        self._bucket, self._counting = TokenBucket(clock.mono_s()), TokenBucket(clock.mono_s())
        self._pauses: dict[TopicType, _Pause] = {}
        self._deaths: dict[bytes, int] = {}
        self._watched: dict[bytes, Judged] = {}
        self._look_again = self._passed_over = False
        """Rule 3: whether to look again, and whether a document went before it already."""
        self._stood_in = False
        self._doubted: bytes | None = None
        self._unfiled: set[TopicType] = set()
        """Rule 5: kinds of which the spool does not have what is obeyed."""

    def remember(self, topic: str, kind: TopicType) -> None:
        """Take the accepted document from the last run as judged, so that its redelivery is a no-op."""
        try:
            payload = self._spool.accepted(kind)
        except (OSError, FleetError) as error:  # rule 5
            self._log.warning("spool", f"the accepted {kind.name} can not be read: {error}")
            self._unfiled.add(kind)
            return
        if payload is not None:
            self._intake.judged(digest_of(topic, payload), good=True)

    def connected(self) -> None:
        """Rule 3: whatever failed for want of the network may work now."""
        self._pauses.clear()
        self._intake.look_again()

    def regrouped(self) -> None:
        """Another group's manifest is another document."""
        if not self._filed("forget", self._spool.forget, topics.MANIFEST):
            self._unfiled.add(topics.MANIFEST)
        self._intake.look_again(at_all=True)

    def hand_in(self, topic: str, payload: bytes, judged: Judged) -> None:
        """A document that somebody on this device hands in: judged like any other, and told what came of it."""
        digest = digest_of(topic, payload)
        if self._intake.verdict(digest):
            judged(None, "already obeyed")
            return
        self._watched[digest] = judged
        self._intake.forget(digest)
        self._intake.offer(topic, payload)

    def wake_s(self) -> float | None:
        """When time alone may let the desk go on; None where it waits for something else."""
        if not self._lane.idle:
            return None
        now_s = self._clock.mono_s()
        kinds = self._intake.kinds() | ({topics.TIMESTAMP} if self._look_again else set())
        due = [max(self._pause_s(kind), self._bucket.ready_s(now_s)) for kind in kinds]
        return min(due, default=None)

    def look(self) -> None:
        """Start on the next document, if a worker is free and rule 1 allows it."""
        self._intake.heard()
        if self._intake.take_trust_change():
            self._look_again = True
            self._pauses.clear()
            self._intake.look_again()
        self._count_dropped()
        if not self._lane.idle:
            return
        now_s = self._clock.mono_s()
        later = [kind for kind in self._pauses if self._pause_s(kind) > now_s]
        if self._bucket.ready_s(now_s) > now_s:
            return
        again = self._look_again and topics.TIMESTAMP not in later
        waiting = None if again and self._passed_over else self._intake.take(later)
        if waiting is not None:
            self._passed_over = again
            self._bucket.take(now_s)
            self._judge(waiting)
        elif again:
            self._bucket.take(now_s)
            self._verify_again()

    def _count_dropped(self) -> None:
        now_s = self._clock.mono_s()
        if self._counting.ready_s(now_s) > now_s:
            return
        for code, topic in self._intake.take_dropped().items():
            self._counting.take(now_s)
            self._log.warning(code, f"dropped a message on {shown(topic)}")
            self._hearers.event(Refused(at=self._clock.moment(), code=code))

    def _judge(self, waiting: Waiting) -> None:
        args: dict[str, Any] = {}
        if waiting.kind is topics.MANIFEST:
            args["group"] = waiting.topic.split("/")[-2]
            if args["group"] != self._hearers.group():
                self._bucket.give_back()
                return
        try:
            args["path"] = str(self._spool.put(waiting.kind, waiting.payload))
        except (OSError, FleetError) as error:
            self._wait_on(waiting, "io", str(error))
            return
        if waiting.kind is topics.MANIFEST:
            self._stood_in, self._look_again = self._look_again, False
        self._lane.add(waiting.kind.name, args, lambda answer: self._conclude(waiting, answer))

    def _verify_again(self) -> None:
        """Rule 3: what is obeyed now, under the trust documents of now."""
        self._look_again = self._passed_over = False
        filed = topics.MANIFEST not in self._unfiled
        group, path = self._hearers.group(), self._spool.accepted_path(topics.MANIFEST) if filed else None
        if group is None or path is None:
            self._lane.add("refresh", {}, self._conclude_again)
        else:
            self._lane.add("manifest", {"path": str(path), "group": group}, self._conclude_again)

    def _conclude(self, waiting: Waiting, answer: Answer) -> None:
        if answer.get("ok"):
            self._stood_in = False
            self._accept(waiting, answer["result"])
            return
        self._look_again, self._stood_in = self._look_again or self._stood_in, False
        code, detail = fault(answer)
        if code == "worker":
            self._deaths[waiting.digest] = self._deaths.get(waiting.digest, 0) + 1
            if self._deaths[waiting.digest] >= _DEATHS_MOST:
                code, detail = "parse", f"the worker died over it: {detail}"
        retry_after_s = answer.get("retry_after_s")
        if CODES[code].fault is not Fault.PROTOCOL:
            self._wait_on(waiting, code, detail)
        elif isinstance(retry_after_s, (int, float)):
            self._doubt(waiting, code, detail, float(retry_after_s))
        else:
            self._refuse(waiting, code, detail)

    def _accept(self, waiting: Waiting, result: Mapping[str, Any]) -> None:
        self._bucket.give_back()
        self._pauses.pop(waiting.kind, None)
        if waiting.kind is topics.COMMAND:
            self._settle(waiting, None, "")
            self._hearers.command(result)
        elif self._hearers.event(self._event(waiting.kind, result)):
            if self._filed("keep", self._spool.accept, waiting.kind):
                self._unfiled.discard(waiting.kind)
            else:
                self._unfiled.add(waiting.kind)
            self._settle(waiting, None, "obeyed")
        else:
            self._wait_on(waiting, "io", "the journal could not be written")

    def _filed(self, what: str, move: Callable[[TopicType], None], kind: TopicType) -> bool:
        """Rule 5: whether the spool could follow."""
        try:
            move(kind)
        except (OSError, FleetError) as error:
            self._log.warning("spool", f"can not {what} the {kind.name}: {error}")
            return False
        return True

    def _event(self, kind: TopicType, result: Mapping[str, Any]) -> Event:
        if kind is topics.ASSIGNMENT:
            return Assigned(at=self._clock.moment(), group=str(result["group"]))
        return Accepted(at=self._clock.moment(), plan=from_json(Plan, result))

    def _refuse(self, waiting: Waiting, code: str, detail: str) -> None:
        self._log.warning(code, f"refused {waiting.topic}: {detail}")
        self._pauses.pop(waiting.kind, None)
        self._filed("drop", self._spool.refuse, waiting.kind)
        self._settle(waiting, code, detail)
        self._hearers.event(Refused(at=self._clock.moment(), code=code))

    def _doubt(self, waiting: Waiting, code: str, detail: str, retry_after_s: float) -> None:
        """Refused by what is known now, but newer keys could not be looked for: counted once, judged again later."""
        if waiting.digest != self._doubted:
            self._doubted = waiting.digest
            self._log.warning(code, f"refused {waiting.topic} for now: {detail}")
            self._hearers.event(Refused(at=self._clock.moment(), code=code))
        self._pauses[waiting.kind] = _Pause(1, self._clock.mono_s() + retry_after_s)
        self._intake.put_back(waiting)
        self._tell(waiting, code, detail)

    def _settle(self, waiting: Waiting, code: str | None, detail: str) -> None:
        self._intake.judged(waiting.digest, good=code is None)
        self._deaths.clear()
        self._tell(waiting, code, detail)

    def _wait_on(self, waiting: Waiting, code: str, detail: str) -> None:
        self._log.info(code, f"{waiting.topic} waits: {detail}")
        self._pause(waiting.kind)
        self._intake.put_back(waiting)
        self._tell(waiting, code, detail)

    def _tell(self, waiting: Waiting, code: str | None, detail: str) -> None:
        judged = self._watched.pop(waiting.digest, None)
        if judged is not None:
            judged(code, detail)

    def _conclude_again(self, answer: Answer) -> None:
        if answer.get("ok"):
            self._bucket.give_back()
            self._pauses.pop(topics.TIMESTAMP, None)
            if "deployments" in answer["result"]:
                self._hearers.event(self._event(topics.MANIFEST, answer["result"]))
            return
        code, detail = fault(answer)
        if CODES[code].fault is Fault.PROTOCOL:
            self._log.warning(code, f"refused on looking again: {detail}")
            self._hearers.event(Refused(at=self._clock.moment(), code=code))
            return
        self._log.info(code, f"looking again waits: {detail}")
        self._look_again = True
        self._pause(topics.TIMESTAMP)

    def _pause(self, kind: TopicType) -> None:
        failures = self._pauses[kind].failures + 1 if kind in self._pauses else 1
        moment = self._clock.moment()
        pause_s = delay_s(failures, moment.luck, most_s=self._retry_most_s)
        self._pauses[kind] = _Pause(failures, moment.mono_s + pause_s)

    def _pause_s(self, kind: TopicType) -> float:
        return self._pauses[kind].until_s if kind in self._pauses else 0.0
