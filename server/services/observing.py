"""From rows to evidence: how the devices of a rollout are doing, in the two arms that the engine compares.

1. A device is selected when it is named by an open wave, or its bucket lies below the newest open wave's share: the
   same arithmetic by which the device itself decides. Only devices of the group, enrolled now, are counted.
2. One device has one vote: how its newest attempt at this deployment stands, by its own signed report.
3. It has committed when it said so of the rollout's own version; a recalled device that committed its fallback has not.
4. It has failed when it rolled back, failed or refused. Abandoned is neither: a hold is no failure.
5. A report of a device that is not selected has no vote.
6. It is silent when it has not finished and nothing proved that it lived for `silence_s`, which begin with the opening
   of the newest wave: before that nobody can be silent, for nobody was told.
7. Hardware that the release does not fit takes no part: with `classes` given, other devices are in no arm.

The cost of asking is one scan of the group in the database and one row for each device that reported. Buckets are
computed once for each device and salt, and the roster is read again only when somebody joins or leaves.
"""

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from fleet_protocol.errors import PolicyError
from fleet_protocol.manifest import bucket
from server.domain.rollout import Arm, FailureSeen, Observations, Rollout
from server.ports import Member, Reads, Vote

K = TypeVar("K")
V = TypeVar("V")
FAILED: Final = frozenset({"rolled_back", "failed", "refused"})
_FAILURES_SHOWN: Final = 5
_ROSTERS_MOST: Final = 16
_CENSUSES_MOST: Final = 64


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
        waves = rollout.policy.waves[: wave + 1]
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
    """Counts evidence for any thread. It keeps rosters and buckets between questions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rosters: OrderedDict[str, tuple[tuple[int, int], list[Member]]] = OrderedDict()
        self._censuses: OrderedDict[tuple[str, str, frozenset[str] | None], _Census] = OrderedDict()

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
        before, now = Selection.of(rollout, rollout.wave - 1), Selection.of(rollout, rollout.wave)
        counts = _Counts(census, before, now)
        votes = [vote for vote in work.votes(rollout.id) if vote.device in census.buckets]
        finished = counts.add_votes(votes, rollout.version)
        counts.add_silent(name for name in _silent(work, rollout, now_s) if name not in finished)
        return Observations(
            of_wave=rollout.wave,
            wave=counts.arm("wave", now.size(census) - before.size(census)),
            treated=counts.arm("treated", now.size(census)),
            control=counts.arm("control", len(census.order) - now.size(census)),
            failures=_failures(work, rollout, counts.failed),
        )

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


class _Counts:
    """Adds up votes and silence by arm; `wave` is a part of `treated`."""

    def __init__(self, census: _Census, before: Selection, now: Selection) -> None:
        self._census = census
        self._before = before
        self._now = now
        self._sums: dict[tuple[str, str], int] = {}
        self.failed: list[Vote] = []
        """The selected devices' failures (rule 5)."""

    def add_votes(self, votes: Iterable[Vote], version: str) -> set[str]:
        """Count each device's vote; returns the devices that have finished."""
        finished: set[str] = set()
        for vote in votes:
            if vote.outcome == "committed" and vote.version == version:
                self._add(vote.device, "committed")
            elif vote.outcome in FAILED:
                if self._add(vote.device, "failed"):
                    self.failed.append(vote)
            else:
                continue
            finished.add(vote.device)
        return finished

    def add_silent(self, devices: Iterable[str]) -> None:
        """Count devices as silent, in both arms."""
        for device in devices:
            if device in self._census.buckets:
                self._add(device, "silent")

    def arm(self, name: str, devices: int) -> Arm:
        """The sums of one arm; by rule 5 nobody in the control arm has a vote."""
        votes = {what: self._sums.get((name, what), 0) for what in ("committed", "failed")} if name != "control" else {}
        return Arm(devices=devices, silent=self._sums.get((name, "silent"), 0), **votes)

    def _add(self, device: str, what: str) -> bool:
        place = self._census.buckets[device]
        selected = self._now.holds(device, place)
        self._sum("treated" if selected else "control", what)
        if selected and not self._before.holds(device, place):
            self._sum("wave", what)
        return selected

    def _sum(self, arm: str, what: str) -> None:
        self._sums[arm, what] = self._sums.get((arm, what), 0) + 1


def _census(stamp: tuple[int, int], names: Iterable[str], salt: str, known: Mapping[str, int]) -> _Census:
    buckets = {name: known[name] if name in known else bucket(salt, name) for name in names}
    return _Census(stamp, buckets, sorted(buckets.values()))


def _silent(work: Reads, rollout: Rollout, now_s: float) -> list[str]:
    """Rule 6, but for who has finished."""
    before_s = now_s - rollout.policy.silence_s
    if rollout.wave_opened_s is None or rollout.wave_opened_s > before_s:
        return []
    return work.unheard(rollout.group, before_s)


def _failures(work: Reads, rollout: Rollout, failed: list[Vote]) -> tuple[FailureSeen, ...]:
    newest = sorted(failed, key=lambda vote: (-vote.at_s, vote.device))[:_FAILURES_SHOWN]
    attempts = [work.attempt(rollout.id, vote.device) for vote in newest]
    return tuple(FailureSeen(device=a.device, code=a.code or "", detail=a.detail) for a in attempts if a is not None)


def _keep_newest(kept: OrderedDict[K, V], key: K, most: int) -> None:
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
