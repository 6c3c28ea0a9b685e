"""Raw documents from strangers, before anybody has verified them: bounded, coalesced, and judged once.

1. What is larger than its topic allows, or stands on no topic of ours, is dropped and counted; what is empty says
   nothing.
2. Of a retained topic only the newest bytes wait; of commands the oldest few, for each is an order of its own.
3. Bytes that were judged already are not judged again: redelivery is a no-op. Those that were refused are looked at
   once more after a new connection or new trust documents, for what was wrong may have been ours.
4. All this takes memory for one document per topic, whatever arrives.
5. Kinds take turns: a flood of one kind holds up no other.
"""

import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Final

from fleet_protocol import limits, topics
from fleet_protocol.errors import ProtocolError
from fleet_protocol.topics import Topics, TopicType

COMMANDS_MOST: Final = 16
_JUDGED_MOST: Final = 64
_TRUST_MOST: Final = 2 * limits.ROOT_ROTATIONS
ORDER: Final = (topics.COMMAND, topics.ASSIGNMENT, topics.MANIFEST)
"""Which kind is looked at first, where none has had its turn yet."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One document that nobody has looked at yet."""

    kind: TopicType
    topic: str
    payload: bytes
    digest: bytes


class Intake:
    """Filled by the link's thread, emptied by the loop."""

    def __init__(self, names: Topics, news: Callable[[], None]) -> None:
        """`news` is called when there is something to take, and then not again before somebody has looked."""
        self._names, self._news = names, news
        self._told = False
        self._dropped: dict[str, str] = {}
        """The topic of the newest message that was dropped, by the code for which it was."""
        self._lock = threading.Lock()
        self._turns = list(ORDER)
        """The kind whose turn is the longest ago comes first."""
        self._newest: dict[str, Waiting] = {}
        self._commands: deque[Waiting] = deque()
        self._judged: OrderedDict[bytes, bool] = OrderedDict()
        """Digest of topic and payload, oldest first: whether it was good."""
        self._trust_seen: OrderedDict[bytes, None] = OrderedDict()
        self._trust_changed = False

    def offer(self, topic: str, payload: bytes) -> None:
        """Take in a message from the broker. Rules 1 to 3; never blocks and never raises."""
        if not payload:
            return
        try:
            kind = self._names.parse(topic).type
        except ProtocolError as error:
            self._note(error.code, topic)
            return
        if kind not in (*ORDER, topics.TIMESTAMP, topics.ROOT):
            return
        if len(payload) > kind.max_size:
            self.note_oversized(topic)
            return
        waiting = Waiting(kind, topic, payload, digest_of(topic, payload))
        with self._lock:
            new = self._keep(waiting)
        if new:
            self._tell()

    def note_oversized(self, topic: str) -> None:
        """Rule 1, for a message that the link did not even read."""
        self._note("size", topic)

    def take_dropped(self) -> Mapping[str, str]:
        """What rule 1 dropped since this was last asked: for each code the newest topic, so one for each burst."""
        with self._lock:
            dropped, self._dropped = self._dropped, {}
        return dropped

    def heard(self) -> None:
        """The news arrived: the next thing to come is news again."""
        with self._lock:
            self._told = False

    def take(self, later: Container[TopicType] = ()) -> Waiting | None:
        """The next document to look at (rule 5); kinds in `later` wait on."""
        with self._lock:
            for kind in self._turns:
                waiting = None if kind in later else self._first(kind)
                if waiting is not None:
                    self._turns.remove(kind)
                    self._turns.append(kind)
                    return waiting
        return None

    def kinds(self) -> set[TopicType]:
        """What kinds of documents wait."""
        with self._lock:
            return {one.kind for one in (*self._newest.values(), *self._commands)}

    def put_back(self, waiting: Waiting) -> None:
        """It could not be judged now; it waits on, unless something newer came meanwhile."""
        with self._lock:
            if waiting.kind is topics.COMMAND:
                self._commands.appendleft(waiting)
            else:
                self._newest.setdefault(waiting.topic, waiting)

    def judged(self, digest: bytes, *, good: bool) -> None:
        """Remember the verdict on these bytes."""
        with self._lock:
            self._judged[digest] = good
            self._judged.move_to_end(digest)
            while len(self._judged) > _JUDGED_MOST:
                self._judged.popitem(last=False)

    def look_again(self, *, at_all: bool = False) -> None:
        """Forget refusals (with `at_all` every verdict): the next delivery of the same bytes is judged anew."""
        with self._lock:
            kept = [] if at_all else [(digest, good) for digest, good in self._judged.items() if good]
            self._judged = OrderedDict(kept)

    def forget(self, digest: bytes) -> None:
        """These bytes are to be judged anew, for whoever hands them in asks for it."""
        with self._lock:
            self._judged.pop(digest, None)

    def verdict(self, digest: bytes) -> bool | None:
        """What was found of these bytes, if they were judged and it is remembered."""
        with self._lock:
            return self._judged.get(digest)

    def take_trust_change(self) -> bool:
        """Whether a timestamp or root that was never seen has come since this was last asked."""
        with self._lock:
            changed, self._trust_changed = self._trust_changed, False
        return changed

    def _first(self, kind: TopicType) -> Waiting | None:
        if kind is topics.COMMAND:
            return self._commands.popleft() if self._commands else None
        topic = next((one.topic for one in self._newest.values() if one.kind is kind), None)
        return None if topic is None else self._newest.pop(topic)

    def _tell(self) -> None:
        with self._lock:
            told, self._told = self._told, True
        if not told:
            self._news()

    def _note(self, code: str, topic: str) -> None:
        with self._lock:
            self._dropped[code] = topic
        self._tell()

    def _keep(self, waiting: Waiting) -> bool:
        """Whether the document is news."""
        if waiting.kind in (topics.TIMESTAMP, topics.ROOT):
            return self._keep_trust(waiting.digest)
        if waiting.digest in self._judged:
            self._newest.pop(waiting.topic, None)
            return False
        if waiting.kind is topics.COMMAND:
            if len(self._commands) >= COMMANDS_MOST:
                return False
            self._commands.append(waiting)
        else:
            self._newest[waiting.topic] = waiting
        return True

    def _keep_trust(self, digest: bytes) -> bool:
        """Only that they changed is news: the worker reads the documents themselves when it needs them."""
        if digest in self._trust_seen:
            return False
        self._trust_seen[digest] = None
        if len(self._trust_seen) > _TRUST_MOST:
            self._trust_seen.popitem(last=False)
        self._trust_changed = True
        return True


def digest_of(topic: str, payload: bytes) -> bytes:
    """What a message is remembered by."""
    return hashlib.sha256(topic.encode() + b"\0" + payload).digest()
