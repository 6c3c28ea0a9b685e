"""Whether a set of Debian packages can be installed together, whoever put it there: the same answer as apt's.

Rules (Debian Policy, chapter 7)
1. What is changed needs all that it depends on. What stays needs what it had before: trouble that was there already
   is not the release's fault.
2. Nothing that is changed may conflict with, or break, what is there, and the other way round.
3. A dependency is met within its own architecture, or by a package that is `Multi-Arch: foreign`; `:any` asks for one
   that allows it. A conflict is with every architecture.
4. What is provided without a version meets only what asks for none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from device_agent.installers.debian_control import ALL, Control, Relation, Relations, relations
from device_agent.installers.debian_version import compare

_HOLDS: Final = {
    "<<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    "=": lambda order: order == 0,
    ">=": lambda order: order >= 0,
    ">>": lambda order: order > 0,
}


@dataclass(frozen=True, slots=True)
class _Offer:
    """A package under a name, its own or one that it provides; `version` is empty where none is provided."""

    control: Control
    version: str


class DebianWorld:
    """All packages of a device at one time."""

    def __init__(self, controls: Iterable[Control], native: str) -> None:
        self.controls = frozenset(controls)
        self._native = native
        self._offers: dict[str, list[_Offer]] = {}
        for control in self.controls:
            for name, version in names(control):
                self._offers.setdefault(name, []).append(_Offer(control, version))

    def meets(self, group: tuple[Relation, ...], asker: Control) -> bool:
        """Whether one of the alternatives is there for `asker`."""
        return any(self._suits(offer, relation, asker) for relation in group for offer in self._found(relation))

    def enemies(self, relation: Relation, asker: Control) -> Iterator[Control]:
        """What `asker` conflicts with, or breaks."""
        for offer in self._found(relation):
            other = offer.control
            if other.name != asker.name and relation.qualifier in ("", "any", self._home(other)):
                yield other

    def _found(self, relation: Relation) -> Iterator[_Offer]:
        for offer in self._offers.get(relation.name, ()):
            if not relation.operator or _holds(offer.version, relation):
                yield offer

    def _suits(self, offer: _Offer, relation: Relation, asker: Control) -> bool:
        """Rule 3."""
        other = offer.control
        if relation.qualifier == "any":
            return other.multi_arch == "allowed"
        if relation.qualifier:
            return self._home(other) == relation.qualifier
        return other.multi_arch == "foreign" or self._home(other) == self._home(asker)

    def _home(self, control: Control) -> str:
        return self._native if control.architecture == ALL else control.architecture


def _holds(version: str, relation: Relation) -> bool:
    """Rule 4."""
    return version != "" and _HOLDS[relation.operator](compare(version, relation.version))


def names(control: Control) -> Iterator[tuple[str, str]]:
    """Its own name and version, then what it provides."""
    yield control.name, control.version
    for group in relations(control.provides):
        for provided in group:
            yield provided.name, provided.version


def needs(control: Control) -> Relations:
    """All that must be there for it to be configured."""
    return relations(control.pre_depends) + relations(control.depends)


def problems(before: DebianWorld, after: DebianWorld) -> Iterator[str]:
    """Rules 1 and 2: why `after` can not be made of `before`, in words."""
    fresh = after.controls - before.controls
    touched = {name for control in before.controls ^ after.controls for name, _ in names(control)}
    for control in sorted(after.controls, key=str):
        new = control in fresh
        for group in needs(control):
            if not (new or any(relation.name in touched for relation in group)) or after.meets(group, control):
                continue
            if new or before.meets(group, control):
                stays = "" if new else ", which stays,"
                yield f"{control}{stays} needs {' | '.join(map(str, group))}"
        for group in relations(control.conflicts) + relations(control.breaks):
            for relation in group:
                if new or relation.name in touched:
                    enemies = (other for other in after.enemies(relation, control) if new or other in fresh)
                    yield from (f"{control} does not go with {other}" for other in enemies)
        if new:
            twins = (
                other for other in after.controls if other.name == control.name and other.version != control.version
            )
            yield from (f"{control} does not go with {twin} for {twin.architecture}" for twin in twins)


def together(one: Control, other: Control) -> bool:
    """Whether both may be installed at once although they have one name."""
    return one.architecture != other.architecture and one.multi_arch == other.multi_arch == "same"


def replaced(controls: Iterable[Control], fresh: Iterable[Control]) -> frozenset[Control]:
    """What is there after `fresh` came to `controls`."""
    coming = tuple(fresh)
    stay = (old for old in controls if not any(old.name == new.name and not together(old, new) for new in coming))
    return frozenset((*stay, *coming))


def batches(controls: Iterable[Control]) -> list[list[Control]]:
    """In which order to install these: what a package pre-depends on is configured in a batch before its own.

    Within a batch dpkg finds the order by itself. A circle of pre-dependencies, which nothing could install, comes out
    as one batch.
    """
    everything = list(controls)
    level = dict.fromkeys(everything, 0)
    for _ in everything:
        for control in everything:
            before = [level[other] + 1 for other in _named(relations(control.pre_depends), everything, control)]
            beside = [level[other] for other in _named(relations(control.depends), everything, control)]
            level[control] = min(max([level[control], *before, *beside]), len(everything))
    order = sorted(set(level.values()))
    return [[control for control in everything if level[control] == place] for place in order]


def _named(wanted: Relations, controls: Iterable[Control], asker: Control) -> Iterator[Control]:
    asked = {relation.name for group in wanted for relation in group}
    return (other for other in controls if other is not asker and asked & {name for name, _ in names(other)})
