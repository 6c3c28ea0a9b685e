"""What may never fall, and the one file that remembers it.

1. The file carries a SHA-256 over its content. Missing or torn is `untrusted`; it is never begun afresh.
2. It names the directory that holds the catalogue's metadata and each file's digest in it, so that writing this
   file is the one step that makes new metadata count, and old or altered metadata is noticed.
3. Every mark belongs to the keys whose signatures made it, and is void once root replaced them.
4. Ids of carried out commands are remembered until the commands expire. Past `COMMANDS_MOST` the ones that expire
   first are forgotten, and whatever expires no later than they did is refused.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fleet_protocol import strict_json
from fleet_protocol.acceptance import Mark
from fleet_protocol.envelope import KeySet
from fleet_protocol.errors import ProtocolError

GROUPS_MOST: Final = 64
COMMANDS_MOST: Final = 256
FILE_SIZE: Final = 1024 * 1024
_NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Which commands were carried out."""

    done: Mapping[str, int] = field(default_factory=dict)
    """When each expires, epoch seconds, by id."""
    floor_s: int = 0
    """Commands that expire at this time or before are refused."""
    voters: frozenset[str] = _NOBODY

    def with_done(self, command: str, expires_s: int, voters: frozenset[str]) -> "Commands":
        """Rule 4."""
        rows = sorted([(expires_s, command), *((time, name) for name, time in self.done.items())])
        forgotten = rows[: max(0, len(rows) - COMMANDS_MOST)]
        floor_s = max([self.floor_s, *(time for time, _ in forgotten)])
        return Commands(done={name: time for time, name in rows[len(forgotten) :]}, floor_s=floor_s, voters=voters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """The floor file's content. Times are epoch seconds."""

    anchor: str
    """SHA-256 of the root that this device was made with."""
    generation: int = 1
    """Which metadata directory counts."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file in it, by name."""
    time_s: int = 0
    """The newest time that a verified document told."""
    time_voters: frozenset[str] = _NOBODY
    group: str | None = None
    assignment: Mark | None = None
    manifests: Mapping[str, Mark] = field(default_factory=dict)
    """The newest manifest obeyed, by group; the most recent last."""
    commands: Commands = field(default_factory=Commands)

    def under(self, role: KeySet) -> "Floors":
        """Rule 3: these floors without what keys set that no longer hold the deployment role."""
        return replace(
            self,
            time_s=self.time_s if _stand(self.time_voters, role) else 0,
            assignment=self.assignment if self.assignment and self.assignment.stands(role) else None,
            manifests={group: mark for group, mark in self.manifests.items() if mark.stands(role)},
            commands=self.commands if _stand(self.commands.voters, role) else Commands(),
        )

    def with_manifest(self, group: str, mark: Mark) -> "Floors":
        """Obeying this manifest; past `GROUPS_MOST` groups the one longest unused is forgotten."""
        rows = [(name, other) for name, other in self.manifests.items() if name != group]
        return replace(self, manifests=dict([*rows, (group, mark)][-GROUPS_MOST:]))

    def with_time(self, time_s: int, voters: frozenset[str]) -> "Floors":
        """The time floor, raised or left."""
        return replace(self, time_s=time_s, time_voters=voters) if time_s > self.time_s else self


def encode(floors: Floors) -> bytes:
    """The file's bytes."""
    content = {
        "v": 1,
        "anchor": floors.anchor,
        "generation": floors.generation,
        "files": dict(floors.files),
        "time": {"time_s": floors.time_s, "voters": sorted(floors.time_voters)},
        "group": floors.group,
        "assignment": None if floors.assignment is None else _mark_out(floors.assignment),
        "manifests": [{"group": group, "mark": _mark_out(mark)} for group, mark in floors.manifests.items()],
        "commands": {
            "done": dict(floors.commands.done),
            "floor_s": floors.commands.floor_s,
            "voters": sorted(floors.commands.voters),
        },
    }
    return strict_json.dumps({"floors": content, "sha256": _digest(content)}) + b"\n"


def decode(data: bytes) -> Floors:
    """The inverse of `encode`; raises ProtocolError `untrusted` for anything else."""
    try:
        document = strict_json.loads(data, max_size=FILE_SIZE)
        content = document["floors"]
        if set(document) != {"floors", "sha256"} or document["sha256"] != _digest(content) or content["v"] != 1:
            raise ValueError("the checksum does not fit")
        return _content(content)
    except (ProtocolError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError("untrusted", f"the floor file is torn: {error}") from None


def _content(content: Mapping[str, Any]) -> Floors:
    time, commands, assignment = content["time"], content["commands"], content["assignment"]
    return Floors(
        anchor=content["anchor"],
        generation=content["generation"],
        files=dict(content["files"]),
        time_s=time["time_s"],
        time_voters=frozenset(time["voters"]),
        group=content["group"],
        assignment=None if assignment is None else _mark_in(assignment),
        manifests={row["group"]: _mark_in(row["mark"]) for row in content["manifests"]},
        commands=Commands(
            done=dict(commands["done"]), floor_s=commands["floor_s"], voters=frozenset(commands["voters"])
        ),
    )


def _mark_out(mark: Mark) -> dict[str, Any]:
    return {"sequence": mark.sequence, "digest": mark.digest, "voters": sorted(mark.voters)}


def _mark_in(row: Mapping[str, Any]) -> Mark:
    return Mark(sequence=row["sequence"], digest=row["digest"], voters=frozenset(row["voters"]))


def _stand(voters: frozenset[str], role: KeySet) -> bool:
    return len(voters & role.values) >= role.threshold


def _digest(content: Any) -> str:
    return hashlib.sha256(strict_json.dumps(content)).hexdigest()
