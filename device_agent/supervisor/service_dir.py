"""What one service's directory says, under one lock, so that any process of the agent can act on it."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from device_agent.adapters.files import make_dir, read_optional, remove, write_atomic
from device_agent.supervisor.process import ProcessId
from device_agent.supervisor.spec import ServiceSpec
from fleet_protocol.errors import InstallError

_MOST: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What ought to be: survives a power cut."""

    up: bool
    generation: int
    """Rises with every change of the specification; restarts are counted within one."""
    spec: ServiceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What was started last. `process` is None after an orderly stop."""

    process: ProcessId | None
    generation: int
    restarts: int


class ServiceDir:
    """`services/<package>/`: wanted.json, pid.json, lock, log, log.1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log"
        self.data = path / "data"

    def make(self) -> None:
        """The directory exists, and so does the one that the service may keep its own data in."""
        make_dir(self.data)

    @contextmanager
    def locked(self) -> Iterator[int]:
        """The lock's descriptor, once no other process acts on this service.

        Released by closing only: a launcher that inherited the descriptor holds the lock until it is the service.
        """
        with self._lock() as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor

    @contextmanager
    def locked_at_once(self) -> Iterator[int | None]:
        """The same without waiting: None where another process acts on this service at this moment."""
        with self._lock() as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield descriptor

    @contextmanager
    def _lock(self) -> Iterator[int]:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def wanted(self) -> Wanted | None:
        """None where this service is not one. Raises InstallError `io` for a file that is not ours."""
        value = self._read("wanted.json")
        if value is None:
            return None
        try:
            spec = ServiceSpec.from_json(value["spec"])
            return Wanted(up=bool(value["up"]), generation=int(value["generation"]), spec=spec)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InstallError("io", f"{self.path.name}: wanted.json is not of its form: {error}") from None

    def replaceable(self) -> Wanted | None:
        """`wanted` for whoever overrules it: what can not be read must not keep a service from being stopped."""
        try:
            return self.wanted()
        except InstallError:
            return None

    def write_wanted(self, wanted: Wanted) -> None:
        """Durable before it returns."""
        value = {"up": wanted.up, "generation": wanted.generation, "spec": wanted.spec.to_json()}
        write_atomic(self.path / "wanted.json", json.dumps(value).encode())

    def started(self) -> Started | None:
        """None where nothing was started; what a power cut tore counts as nothing, for then nothing runs."""
        try:
            value = self._read("pid.json")
            if value is None:
                return None
            process = None if value["process"] is None else ProcessId(**value["process"])
            return Started(process=process, generation=int(value["generation"]), restarts=int(value["restarts"]))
        except (InstallError, KeyError, TypeError, ValueError):
            return None

    def write_started(self, started: Started) -> None:
        """Not durable: after a power cut no process of before is there."""
        process = started.process
        value = {
            "process": process and {"pid": process.pid, "start_ticks": process.start_ticks, "boot": process.boot},
            "generation": started.generation,
            "restarts": started.restarts,
        }
        write_atomic(self.path / "pid.json", json.dumps(value).encode(), durable=False)

    def forget(self) -> None:
        """There is no such service any more; its log and data stay."""
        remove(self.path / "wanted.json")
        remove(self.path / "pid.json")

    def _read(self, name: str) -> Mapping[str, Any] | None:
        data = read_optional(self.path / name, _MOST)
        if data is None:
            return None
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InstallError("io", f"{self.path.name}: {name} can not be read")
        return value
