"""What is to run, and what does."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """One service as its release describes it, with every variable already filled in."""

    exec: tuple[str, ...]
    """Program (an absolute path) and arguments; never seen by a shell."""
    cwd: str
    """The slot's own directory, not the `current` link: a running service never changes its release."""
    env: Mapping[str, str]
    """The whole environment; nothing of the agent's is inherited."""
    version: str
    stop_s: float
    """How long the service has after SIGTERM before SIGKILL."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON members; the inverse of `from_json`."""
        return asdict(self) | {"exec": list(self.exec), "env": dict(self.env)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what `to_json` can not have written."""
        return cls(
            exec=tuple(str(item) for item in value["exec"]),
            cwd=str(value["cwd"]),
            env={str(name): str(text) for name, text in value["env"].items()},
            version=str(value["version"]),
            stop_s=float(value["stop_s"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStatus:
    """One service as it is now."""

    name: str
    wanted: bool
    """Whether it ought to run."""
    running: bool
    ended: bool
    """It ended by itself and was not started again yet."""
    pid: int | None
    restarts: int
    """How often it ended by itself since this release was started; 0 again with the next release."""
    since_s: float | None
    """For how long the present process has been running."""
    version: str
