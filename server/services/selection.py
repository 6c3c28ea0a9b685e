"""Who takes part in a rollout: the arithmetic by which each device decides for itself, over a whole group."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet_protocol.manifest import bucket
from server.domain import engine
from server.domain.rollout import OpenWave, Rollout


@dataclass(frozen=True, slots=True)
class Census:
    """The buckets of a group's devices under one salt."""

    buckets: Mapping[str, int]
    order: list[int]
    """All buckets, sorted."""

    @classmethod
    def of(cls, names: Iterable[str], salt: str, known: Mapping[str, int]) -> "Census":
        """The census of these devices; `known` are buckets under the same salt that need not be computed again."""
        buckets = {name: known[name] if name in known else bucket(salt, name) for name in names}
        return cls(buckets, sorted(buckets.values()))

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
        return cls(engine.share_of(rollout, wave), frozenset(device for each in waves for device in each.devices))

    def holds(self, device: str, place: int) -> bool:
        """Whether the device with this bucket takes part."""
        return place < self.share_bp or device in self.named

    def size(self, census: Census) -> int:
        """How many devices of the census take part."""
        extra = sum(1 for name in self.named if census.buckets.get(name, -1) >= self.share_bp)
        return census.below(self.share_bp) + extra

    def lowest_left(self, census: Census) -> int | None:
        """The lowest bucket of a device of the census that takes no part; None where all do."""
        named = Counter(census.buckets[name] for name in self.named if name in census.buckets)
        for index in range(census.below(self.share_bp), len(census.order)):
            place = census.order[index]
            if not named[place]:
                return place
            named[place] -= 1
        return None

    def left(self, names: Iterable[str], census: Census) -> int:
        """How many of the names are devices of the census that take no part."""
        found = [name for name in dict.fromkeys(names) if name in census.buckets]
        return sum(1 for name in found if not self.holds(name, census.buckets[name]))


def named_next(rollout: Rollout) -> tuple[str, ...]:
    """The devices that the wave after the newest open one names."""
    return next((wave.devices for wave in rollout.policy.waves[rollout.wave + 1 :]), ())


def sizes(rollout: Rollout, census: Census) -> tuple[int, ...]:
    """By wave, how many devices of the census take part once it is open; of the later waves, as the census is now."""
    found = []
    for index in range(len(rollout.policy.waves)):
        if index > rollout.wave:
            now = Selection.of(rollout, rollout.wave)
            left = now.left(named_next(rollout), census)
            share_bp = engine.next_share(rollout, now.lowest_left(census), left)
            rollout = engine.apply(rollout, OpenWave(index=index, share_bp=share_bp), 0.0)
        found.append(Selection.of(rollout, index).size(census))
    return tuple(found)
