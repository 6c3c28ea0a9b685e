"""From rows to evidence: how the devices of a rollout are doing, in the two arms that the engine compares.

1. A device is selected when it is named by an open wave, or its bucket lies below the newest open wave's share, as it
   was decided when that opened: the same arithmetic by which the device itself decides. Only devices of the group,
   enrolled now, are counted.
2. One device has one vote: how its newest attempt at this deployment stands, by its own signed report.
3. What that is worth is for server.domain.evidence to say (V1 to V4).
4. A device that was withdrawn is in its arm, and neither committed, failed nor silent.
5. A report of a device that is not selected has no vote.
6. It is silent when it has not finished and nothing proved that it lived for `silence_s`, which begin with the opening
   of the newest wave: before that nobody can be silent, for nobody was told.
7. Hardware that the release does not fit takes no part: with `classes` given, other devices are in no arm.

The cost of asking is one scan of the group inside the database, and one row for each device that reported since the
last question or is silent. Buckets are computed once for each device and salt, and the roster is read again only when
somebody joins or leaves.
"""

import heapq
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from fleet_protocol.errors import PolicyError
from server.domain.evidence import word
from server.domain.rollout import Arm, FailureSeen, Observations, Rollout
from server.ports import Member, Reads, Vote
from server.services.selection import Census, Selection, named_next

K = TypeVar("K")
V = TypeVar("V")
_FAILURES_SHOWN: Final = 5
_ROSTERS_MOST: Final = 16
_CENSUSES_MOST: Final = 64
_LEDGERS_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class _Kept:
    """A census, and the roster of which it was made."""

    stamp: tuple[int, int]
    census: Census


class Observer:
    """Counts evidence for any thread. Between questions it keeps rosters, buckets and the votes counted so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rosters: OrderedDict[str, tuple[tuple[int, int], list[Member]]] = OrderedDict()
        self._censuses: OrderedDict[tuple[str, str, frozenset[str] | None], _Kept] = OrderedDict()
        self._ledgers: OrderedDict[str, _Ledger] = OrderedDict()

    def observe(
        self, work: Reads, rollout: Rollout, now_s: float, classes: Collection[str] | None = None
    ) -> Observations:
        """The evidence for one rollout at `now_s` (epoch seconds).

        Raises PolicyError `unknown-update` where the rollout has no job, which holds its salt.
        """
        job = work.job(rollout.id)
        if job is None:
            raise PolicyError("unknown-update", f"rollout {rollout.id} has no job")
        with self._lock:
            census = self._census(work, rollout.group, job.salt, classes)
            ledger = self._ledger(rollout, census)
            ledger.add(work.votes(rollout.id, ledger.newest))
            silent = ledger.silent(_unheard(work, rollout, now_s))
            return ledger.observations(silent, _failures(work, rollout, ledger.failed.values()))

    def _census(self, work: Reads, group: str, salt: str, classes: Collection[str] | None) -> Census:
        stamp, members = self._roster(work, group)
        wanted = None if classes is None else frozenset(classes)
        key = (group, salt, wanted)
        known = self._censuses.get(key)
        if known is None or known.stamp != stamp:
            names = [each.device for each in members if wanted is None or each.device_class in wanted]
            known = _Kept(stamp, Census.of(names, salt, known.census.buckets if known else {}))
            self._censuses[key] = known
        _keep_newest(self._censuses, key, _CENSUSES_MOST)
        return known.census

    def _roster(self, work: Reads, group: str) -> tuple[tuple[int, int], list[Member]]:
        stamp = work.roster_stamp(group)
        known = self._rosters.get(group)
        if known is None or known[0] != stamp:
            known = (stamp, work.roster(group))
            self._rosters[group] = known
        _keep_newest(self._rosters, group, _ROSTERS_MOST)
        return known

    def _ledger(self, rollout: Rollout, census: Census) -> "_Ledger":
        known = self._ledgers.get(rollout.id)
        if known is None or not known.is_of(rollout, census):
            known = _Ledger(rollout, census)
            self._ledgers[rollout.id] = known
        _keep_newest(self._ledgers, rollout.id, _LEDGERS_MOST)
        return known


class _Ledger:
    """The votes about one rollout, counted by arm; `wave` is a part of `treated`."""

    def __init__(self, rollout: Rollout, census: Census) -> None:
        self._rollout = rollout
        self._census = census
        self._before = Selection.of(rollout, rollout.wave - 1)
        self._now = Selection.of(rollout, rollout.wave)
        self._finished: dict[str, str] = {}
        """`committed`, `failed` or `withdrawn` by device."""
        self._sums: dict[tuple[str, str], int] = {}
        self.failed: dict[str, Vote] = {}
        """The selected devices' failures (rule 5)."""
        self.newest = 0
        """The newest change that is counted."""

    def is_of(self, rollout: Rollout, census: Census) -> bool:
        """Whether what was counted still stands: the same devices, waves and version."""
        mine = self._rollout
        same = (mine.wave, mine.shares, mine.version) == (rollout.wave, rollout.shares, rollout.version)
        return same and mine.policy.waves == rollout.policy.waves and self._census is census

    def add(self, votes: Iterable[Vote]) -> None:
        """Count votes that are new; each replaces the device's older one (rule 2)."""
        for vote in votes:
            self.newest = max(self.newest, vote.change)
            name = vote.device
            if name not in self._census.buckets:
                continue
            self.failed.pop(name, None)
            older = self._finished.pop(name, None)
            newer = word(vote.outcome, vote.code, version=vote.version, wanted=self._rollout.version)
            if older is not None:
                self._count(self._sums, name, older, -1)
            if newer is not None:
                self._finished[name] = newer
                self._count(self._sums, name, newer, 1)
                if newer == "failed" and self._now.holds(name, self._census.buckets[name]):
                    self.failed[name] = vote

    def silent(self, unheard: Iterable[str]) -> dict[tuple[str, str], int]:
        """How many of these count as silent, by arm (rule 6)."""
        sums: dict[tuple[str, str], int] = {}
        for name in unheard:
            if name not in self._finished and name in self._census.buckets:
                self._count(sums, name, "silent", 1)
        return sums

    def observations(self, silent: dict[tuple[str, str], int], failures: tuple[FailureSeen, ...]) -> Observations:
        """Everything together; by rule 5 nobody in the control arm has a vote."""
        census, before, now = self._census, self._before.size(self._census), self._now.size(self._census)

        def arm(name: str, devices: int) -> Arm:
            committed, failed = (self._sums.get((name, what), 0) for what in ("committed", "failed"))
            return Arm(devices=devices, committed=committed, failed=failed, silent=silent.get((name, "silent"), 0))

        return Observations(
            of_wave=self._rollout.wave,
            wave=arm("wave", now - before),
            treated=arm("treated", now),
            control=replace(arm("control", len(census.order) - now), committed=0, failed=0),
            lowest_left=self._now.lowest_left(census),
            next_named=self._now.left(named_next(self._rollout), census),
            failures=failures,
        )

    def _count(self, sums: dict[tuple[str, str], int], device: str, what: str, by: int) -> None:
        place = self._census.buckets[device]
        selected = self._now.holds(device, place)
        arms = ["treated" if selected else "control"]
        if selected and not self._before.holds(device, place):
            arms.append("wave")
        for arm in arms:
            sums[arm, what] = sums.get((arm, what), 0) + by


def _unheard(work: Reads, rollout: Rollout, now_s: float) -> list[str]:
    """Rule 6, but for who has finished."""
    before_s = now_s - rollout.policy.silence_s
    if rollout.wave_opened_s is None or rollout.wave_opened_s > before_s:
        return []
    return work.unheard(rollout.group, before_s)


def _failures(work: Reads, rollout: Rollout, failed: Iterable[Vote]) -> tuple[FailureSeen, ...]:
    newest = heapq.nsmallest(_FAILURES_SHOWN, failed, key=lambda vote: (-vote.at_s, vote.device))
    attempts = [work.attempt(rollout.id, vote.device) for vote in newest]
    return tuple(FailureSeen(device=a.device, code=a.code or "", detail=a.detail) for a in attempts if a is not None)


def _keep_newest(kept: OrderedDict[K, V], key: K, most: int) -> None:
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
