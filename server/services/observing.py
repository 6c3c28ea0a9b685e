"""From rows to evidence: how the devices of a rollout are doing, in the two arms that the engine compares.

1. A device is selected when it is named by an open wave, or its bucket lies below the newest open wave's share: the
   same arithmetic by which the device itself decides. Only devices of the group, enrolled now, are counted.
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
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from fleet_protocol.errors import PolicyError
from fleet_protocol.manifest import bucket
from server.domain.evidence import word
from server.domain.rollout import Arm, FailureSeen, Observations, Rollout
from server.ports import Member, Reads, Vote

K = TypeVar("K")
V = TypeVar("V")
_FAILURES_SHOWN: Final = 5
_ROSTERS_MOST: Final = 16
_CENSUSES_MOST: Final = 64
_LEDGERS_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class _Census:
    """The buckets of one group's devices under one salt."""

    stamp: tuple[int, int]
    buckets: Mapping[str, int]
    order: list[int]
    """All buckets, sorted."""

    def below(self, share_bp: int) -> int:
        """How many buckets lie below the share."""
        return bisect_left(self.order, share_bp)


@dataclass(frozen=True, slots=True)
class Selection:
    """Who takes part in a rollout: by share, or by name."""

    share_bp: int
    named: frozenset[str]

    @classmethod
    def of(cls, rollout: Rollout, wave: int) -> "Selection":
        """Everybody that the waves up to this index select; nobody for an index below 0."""
        waves = rollout.policy.waves[: max(0, wave + 1)]
        named = frozenset(device for each in waves for device in each.devices)
        return cls(waves[-1].share_bp if waves else 0, named)

    def holds(self, device: str, place: int) -> bool:
        """Whether the device with this bucket takes part (rule 1)."""
        return place < self.share_bp or device in self.named

    def size(self, census: _Census) -> int:
        """How many devices of the census take part."""
        extra = sum(1 for name in self.named if census.buckets.get(name, -1) >= self.share_bp)
        return census.below(self.share_bp) + extra


class Observer:
    """Counts evidence for any thread. Between questions it keeps rosters, buckets and the votes counted so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rosters: OrderedDict[str, tuple[tuple[int, int], list[Member]]] = OrderedDict()
        self._censuses: OrderedDict[tuple[str, str, frozenset[str] | None], _Census] = OrderedDict()
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

    def _census(self, work: Reads, group: str, salt: str, classes: Collection[str] | None) -> _Census:
        stamp, members = self._roster(work, group)
        wanted = None if classes is None else frozenset(classes)
        key = (group, salt, wanted)
        known = self._censuses.get(key)
        if known is None or known.stamp != stamp:
            names = [each.device for each in members if wanted is None or each.device_class in wanted]
            known = _census(stamp, names, salt, known.buckets if known else {})
            self._censuses[key] = known
        _keep_newest(self._censuses, key, _CENSUSES_MOST)
        return known

    def _roster(self, work: Reads, group: str) -> tuple[tuple[int, int], list[Member]]:
        stamp = work.roster_stamp(group)
        known = self._rosters.get(group)
        if known is None or known[0] != stamp:
            known = (stamp, work.roster(group))
            self._rosters[group] = known
        _keep_newest(self._rosters, group, _ROSTERS_MOST)
        return known

    def _ledger(self, rollout: Rollout, census: _Census) -> "_Ledger":
        known = self._ledgers.get(rollout.id)
        if known is None or not known.is_of(rollout, census):
            known = _Ledger(rollout, census)
            self._ledgers[rollout.id] = known
        _keep_newest(self._ledgers, rollout.id, _LEDGERS_MOST)
        return known


class _Ledger:
    """The votes about one rollout, counted by arm; `wave` is a part of `treated`."""

    def __init__(self, rollout: Rollout, census: _Census) -> None:
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

    def is_of(self, rollout: Rollout, census: _Census) -> bool:
        """Whether what was counted still stands: the same devices, waves and version."""
        mine = self._rollout
        same = (mine.wave, mine.version, mine.policy.waves) == (rollout.wave, rollout.version, rollout.policy.waves)
        return same and self._census is census

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


def _census(stamp: tuple[int, int], names: Iterable[str], salt: str, known: Mapping[str, int]) -> _Census:
    buckets = {name: known[name] if name in known else bucket(salt, name) for name in names}
    return _Census(stamp, buckets, sorted(buckets.values()))


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
