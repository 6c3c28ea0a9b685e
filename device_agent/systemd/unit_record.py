"""Which systemd unit runs a service, and whether it must not start: on disk, beside what the supervisor keeps.

1. `unit.json` names the unit as long as a service of ours is one. Whoever lists services reads it.
2. While `quiet` is there the unit does not start, whoever asks: its drop-in says so to systemd, at every boot too.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from device_agent.adapters.files import make_dir, read_optional, remove, write_atomic
from fleet_protocol.errors import InstallError
from fleet_protocol.ids import check_id, is_id

_MOST: Final = 64 * 1024
_FILE: Final = "unit.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRecord:
    """One unit of ours. `user` is the account whose own service manager has it, None for the system's."""

    unit: str
    user: str | None
    package: str
    version: str
    target: str
    """The artifact's SHA-256."""

    @property
    def key(self) -> tuple[str, str | None]:
        """What it is called, and by whom."""
        return self.unit, self.user

    def to_json(self) -> dict[str, Any]:
        """Plain JSON members; the inverse of `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises KeyError or TypeError for what `to_json` can not have written."""
        user = value["user"]
        texts = {name: str(value[name]) for name in ("unit", "package", "version", "target")}
        return cls(user=None if user is None else str(user), **texts)


class UnitPlace:
    """`services/<service>/`, as far as a unit is concerned. Errors of the disk come as OSError."""

    def __init__(self, state_dir: Path, service: str) -> None:
        self._path = state_dir / "services" / check_id(service, "service")
        self.guard = self._path / "quiet"

    def record(self) -> UnitRecord | None:
        """The unit that runs this service; None where there is none. Raises InstallError `io` for a torn file."""
        data = read_optional(self._path / _FILE, _MOST)
        if data is None:
            return None
        try:
            return UnitRecord.from_json(json.loads(data))
        except (ValueError, KeyError, TypeError):
            raise InstallError("io", f"{self._path.name}: {_FILE} can not be read") from None

    def write(self, record: UnitRecord) -> None:
        """Durable before it returns."""
        make_dir(self._path)
        write_atomic(self._path / _FILE, json.dumps(record.to_json()).encode())

    def forget(self) -> None:
        """The service is no unit any more; its data stays."""
        remove(self._path / _FILE)

    def quiet(self, *, active: bool) -> None:
        """Rule 2, durably. `active` says whether the unit ran; what was said first is kept."""
        if not self.is_quiet:
            make_dir(self._path)
            write_atomic(self.guard, b"active\n" if active else b"inactive\n")

    @property
    def is_quiet(self) -> bool:
        """Whether the unit must not start."""
        return self.guard.exists()

    @property
    def ran(self) -> bool:
        """Whether the unit ran when it was made quiet."""
        return read_optional(self.guard, _MOST) == b"active\n"

    def release(self) -> None:
        """The unit may start again."""
        remove(self.guard)


def unit_records(state_dir: Path) -> Iterator[tuple[str, UnitRecord]]:
    """All services that are units, by name."""
    root = state_dir / "services"
    names = sorted(path.name for path in root.iterdir() if is_id(path.name)) if root.is_dir() else []
    for name in names:
        record = UnitPlace(state_dir, name).record()
        if record is not None:
            yield name, record
