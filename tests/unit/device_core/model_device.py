"""A model of a device around the machine: slots, links, a journal, workers, and power that may fail at any time.

The model executes effects as the real shell does (persist first, then act; a queue of one worker), and checks at every
step, by their numbers in `docs/invariants.md`, the invariants D1, D2, D3, D4, D5, D6, D7, D8, D9, D10, D11 and D12.
"""

from collections import deque
from typing import Any

from device_agent.core.effects import (
    Activate,
    Cancel,
    Check,
    Commit,
    Discard,
    Effect,
    Fetch,
    Reply,
    Report,
    Revert,
    Stage,
)
from device_agent.core.events import (
    Activated,
    Checked,
    Event,
    Failed,
    Fetched,
    Moment,
    ReportQueued,
    Reverted,
    Staged,
    Started,
    Ticked,
    Tidied,
)
from device_agent.core.history import TRANSIENT, TRIES
from device_agent.core.machine import TRANSITIONS, initial, step
from device_agent.core.memory import from_memory, to_memory
from device_agent.core.plan import PlannedRelease
from device_agent.core.record import Attempt, PackageSlots, Record
from device_agent.core.reports import PENDING
from device_agent.core.slots import EMPTY, active_content
from fleet_protocol.messages import AttemptReport
from tests.unit.device_core.plans import DEVICE, WALL_S, sha256

ATTEMPT_EFFECTS = (Fetch, Stage, Activate, Check, Revert)
PARTIAL = "partial"


def tree_of(release: PlannedRelease) -> str:
    return sha256(f"tree {release.package} {release.counter}")


class ModelDevice:
    """One device. `slots[package][slot]` is a tree's digest, PARTIAL or None; `links[package]` the running slot."""

    def __init__(self) -> None:
        self.record = initial(DEVICE)
        self.disk: Any = to_memory(self.record)
        self.queue: deque[Effect] = deque()
        self.unsigned: list[int] = []
        self.slots: dict[str, dict[str, str | None]] = {}
        self.links: dict[str, str | None] = {}
        self.cache: set[str] = set()
        self.mono_s, self.wall_s, self.luck = 100.0, WALL_S, 0.5
        self.spent: dict[tuple[str, bool], int] = {}
        """Failed attempts by deployment, those of its recall apart."""
        self.final: set[str] = set()
        self.send(Started)

    @property
    def at(self) -> Moment:
        return Moment(wall_s=self.wall_s, mono_s=self.mono_s, luck=self.luck)

    def send(self, kind: type[Event], **members: Any) -> None:
        """One event: step, persist, act. Checks what must hold of every step."""
        event = kind(at=self.at, **members)
        before = self.record
        after, effects = step(before, event)
        assert (after, effects) == step(before, event), "D11: deciding twice gives the same"
        self._check_step(before, event, after, effects)
        self.record, self.disk = after, to_memory(after)
        if isinstance(event, Ticked):
            self._check_tick_again(event)
        for effect in effects:
            self._act(effect)
        assert sum(isinstance(effect, ATTEMPT_EFFECTS) for effect in self.queue) <= 1, "D6: one worker effect at a time"

    def pass_time(self, seconds_s: float) -> None:
        self.mono_s += seconds_s
        self.wall_s += seconds_s
        self.send(Ticked)

    def wake(self) -> bool:
        """Let time pass until the machine wants a tick. False where it wants none."""
        if self.record.wake_s is None:
            return False
        self.pass_time(max(0.0, self.record.wake_s - self.mono_s))
        return True

    def crash(self) -> None:
        """Power is lost: only the disk is left, and another boot begins."""
        self.queue.clear()
        self.unsigned.clear()
        self.record = from_memory(self.disk)
        self.mono_s, self.wall_s = 50.0, self.wall_s + 20.0
        self.send(Started)

    def sign(self) -> None:
        """The oldest report gets into the outbox."""
        if self.unsigned:
            self.send(ReportQueued, counter=self.unsigned.pop(0))

    def told_to_retry(self) -> None:
        """What the invariant D5 allows anew."""
        planned = () if self.record.plan is None else self.record.plan.deployments
        for deployment in planned:
            self._forget(deployment.id)
            self.final.discard(deployment.id)

    def rot(self, package: str) -> None:
        """The disk loses what a slot that does not run holds."""
        for slot, tree in self.slots.get(package, {}).items():
            if slot != self.links.get(package) and tree is not None:
                self.slots[package][slot] = sha256("rotten")

    def run(self, ending: str, code: str | None = None, *, twice: bool = False) -> None:
        """Execute the oldest worker effect; `ending`: ok, fail, before, midway or after (power is lost then)."""
        if not self.queue:
            return
        effect = self.queue[0]
        if ending == "before":
            self.crash()
            return
        if twice:
            self._execute(effect, "ok")
        result = self._execute(effect, "after" if code == "start" and isinstance(effect, Revert) else ending)
        if ending in ("midway", "after"):
            self.crash()
            return
        self.queue.popleft()
        self._answer(effect, result if ending == "ok" or result is not None else (code or "io"))

    def settle(self) -> None:
        """Everything goes well from now on, until nothing is left to do: it must come to an end (D4, D5)."""
        for _ in range(300):
            while self.unsigned:
                self.sign()
            if self.queue:
                self.run("ok")
            elif self.record.stage == "idle" and (self.record.wake_s is None or self.record.wake_s > self.mono_s + 900):
                return
            elif not self.wake():
                raise AssertionError(f"stuck in {self.record.stage}: {self.record.why}")
            elif self.record.stage == "idle" and not self.queue and self._waits_for_the_clock():
                return
        raise AssertionError(f"never settles: {self.record.stage}: {self.record.why}")

    def check_settled(self) -> None:
        """D10: exactly an old or a new release runs, and it is the one that the record names."""
        assert self.record.attempt is None
        for package, slots in self.record.packages.items():
            link = self.links.get(package)
            assert link == slots.active, f"D10: {package} runs {link}, the record says {slots.active}"
            content = slots.content(slots.active)
            if link is not None:
                assert content is not None and self.slots[package][link] == content.tree, "D10: what runs is whole"

    def _waits_for_the_clock(self) -> bool:
        return self.record.wake_s is not None and self.record.wake_s > self.mono_s + 100

    def _check_step(self, before: Record, event: Event, after: Record, effects: tuple[Effect, ...]) -> None:
        rule = TRANSITIONS[before.stage][type(event)]
        assert after == before or after.stage in rule.to, (
            f"the table does not tell {before.stage} -{type(event).__name__}-> {after.stage}"
        )
        assert (after.stage == "idle") == (after.attempt is None)
        if after.group == before.group:
            assert after.obeyed >= before.obeyed, "D3: the obeyed sequence never falls within a group"
        if after.plan is not None:
            assert after.plan.group == after.group and after.plan.sequence == after.obeyed
        counters = [effect.report.counter for effect in effects if isinstance(effect, Report)]
        fresh = [counter for counter in counters if counter > before.report_counter]
        assert counters == sorted(set(counters)), "D8: report counters strictly rise"
        assert fresh == list(range(before.report_counter + 1, after.report_counter + 1)), "D8"
        assert len(after.pending) <= PENDING
        assert sum(isinstance(effect, ATTEMPT_EFFECTS) for effect in effects) <= 1, "D6"
        assert after.why, "D12: the device always says why"
        if before.attempt != after.attempt:
            self._check_attempt(before, after)
        for effect in effects:
            if isinstance(effect, Report) and effect.report.counter > before.report_counter:
                self._count_outcome(before.attempt, effect.report.attempt)

    def _check_attempt(self, before: Record, after: Record) -> None:
        """What must hold of an attempt that begins."""
        attempt = after.attempt
        if attempt is None or (before.attempt is not None and before.attempt.deployment == attempt.deployment):
            return
        name, slots = attempt.deployment, after.packages.get(attempt.release.package, EMPTY)
        assert attempt.slot != slots.active, "D1: the active slot is never written"
        if attempt.tree is not None:
            spare = slots.content(attempt.slot)
            assert spare is not None, "D2: what is switched to at once is there"
            assert (spare.tree, spare.standing) == (attempt.tree, "good"), "D2: and was committed before"
        content = active_content(after, attempt.release.package)
        if attempt.purpose == "install":
            installed = 0 if content is None else content.release.counter
            assert attempt.release.counter > installed, "D9: a downgrade only through a recall or a rollback"
        if attempt.purpose != "rollback":
            assert self.spent.get((name, attempt.purpose == "recall"), 0) < TRIES, "D5: attempts are bounded"
        if attempt.purpose == "install":
            assert name not in self.final, "D5: a failed deployment is not retried until told"
        floor = 0 if after.plan is None else after.plan.floors.get(attempt.release.package, 0)
        if attempt.purpose != "install":
            assert attempt.release.counter >= floor, "D9: never below the floor"

    def _count_outcome(self, attempt: Attempt | None, report: AttemptReport | None) -> None:
        if attempt is None or report is None or report.outcome is None or report.deployment != attempt.deployment:
            return
        if report.outcome == "committed":
            self._forget(report.deployment)
            self.final.discard(report.deployment)
        elif report.outcome in ("failed", "rolled_back") and attempt.purpose == "install":
            self._spend(report.deployment, recall=False)
            if report.code not in TRANSIENT and (attempt.code or report.code) not in TRANSIENT:
                self.final.add(report.deployment)
        elif report.outcome == "failed" and attempt.purpose == "recall":
            self._spend(report.deployment, recall=True)

    def _spend(self, name: str, *, recall: bool) -> None:
        self.spent[name, recall] = self.spent.get((name, recall), 0) + 1

    def _forget(self, name: str) -> None:
        for recall in (False, True):
            self.spent.pop((name, recall), None)

    def _check_tick_again(self, event: Ticked) -> None:
        if self.record.wake_s is None or self.record.wake_s > self.mono_s:
            assert step(self.record, event) == (self.record, ()), "D11: a tick that finds nothing due changes nothing"

    def _act(self, effect: Effect) -> None:
        if isinstance(effect, Cancel):
            self.queue.clear()
        elif isinstance(effect, Report):
            if effect.report.counter not in self.unsigned:
                self.unsigned.append(effect.report.counter)
        elif not isinstance(effect, Reply):
            self.queue.append(effect)

    def _execute(self, effect: Effect, ending: str) -> str | None:
        """Change the world; None, or the code of what went wrong by itself."""
        if isinstance(effect, Discard):
            return self._discard(effect)
        if isinstance(effect, Commit):
            assert self.links.get(effect.package) == effect.slot, "D2: what is committed runs"
            self.cache.clear()
            return None
        attempt = self.record.attempt
        assert attempt is not None, "D6: a worker effect belongs to an attempt"
        world = self.slots.setdefault(attempt.release.package, {"a": None, "b": None})
        if isinstance(effect, Fetch):
            if ending == "ok":
                self.cache.add(attempt.release.targets[0].sha256)
            return None
        if isinstance(effect, Stage):
            return self._stage(attempt, world, ending)
        if isinstance(effect, Activate):
            return self._activate(attempt, world, ending)
        if isinstance(effect, Revert):
            return self._revert(attempt, world, ending)
        return None

    def _discard(self, effect: Discard) -> None:
        self.cache.clear()
        if effect.slot is not None:
            assert self.links.get(effect.package) != effect.slot, "D1: the active slot is never emptied"
            self.slots.setdefault(effect.package, {"a": None, "b": None})[effect.slot] = None

    def _stage(self, attempt: Attempt, world: dict[str, str | None], ending: str) -> str | None:
        package = attempt.release.package
        slots = self.record.packages.get(package, PackageSlots())
        assert attempt.slot not in (slots.active, self.links.get(package)), "D1: the active slot is never written"
        assert slots.content(attempt.slot) is None, "D1: the record has forgotten what the slot held"
        if attempt.release.targets[0].sha256 not in self.cache:
            return "digest"
        world[attempt.slot] = PARTIAL if ending in ("fail", "midway") else tree_of(attempt.release)
        return None

    def _activate(self, attempt: Attempt, world: dict[str, str | None], ending: str) -> str | None:
        content = self.record.packages[attempt.release.package].content(attempt.slot)
        assert attempt.tree is not None and content is not None and content.tree == attempt.tree, "D2"
        if world[attempt.slot] != attempt.tree:
            return "altered"
        assert world[attempt.slot] != PARTIAL, "D2: only what was hashed is switched to"
        if ending != "midway":
            self.links[attempt.release.package] = attempt.slot
        return None

    def _revert(self, attempt: Attempt, world: dict[str, str | None], ending: str) -> str | None:
        package = attempt.release.package
        if attempt.previous is not None and self.links.get(package) != attempt.previous:
            content = self.record.packages[package].content(attempt.previous)
            if content is None or world[attempt.previous] != content.tree:
                return "altered"
        if ending in ("ok", "after"):
            self.links[package] = attempt.previous
        return None

    def _answer(self, effect: Effect, code: str | None) -> None:
        if isinstance(effect, (Commit, Discard)):
            if code is None:
                self.send(Tidied, package=effect.package, op="commit" if isinstance(effect, Commit) else "discard")
            return
        attempt = self.record.attempt
        assert attempt is not None
        name = attempt.deployment
        if isinstance(effect, Check):
            self.send(Checked, deployment=name, code=code, detail="")
        elif code is not None:
            self.send(Failed, deployment=name, code=code, detail="")
        elif isinstance(effect, Stage):
            self.send(Staged, deployment=name, tree=tree_of(attempt.release))
        else:
            ends: dict[type[Effect], type[Event]] = {Fetch: Fetched, Activate: Activated, Revert: Reverted}
            self.send(ends[type(effect)], deployment=name)
