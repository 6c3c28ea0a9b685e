"""How the server itself is: for GET /health and for the metrics."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from server.domain.rollout import RolloutState
from server.ports import Link, Store

_KEPT_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The server at one moment. `problems` are sentences for people; none means that it does its work."""

    connected: bool
    broker_url: str
    devices: int
    available: int
    active: int
    signing: str
    uptime_s: float
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Counted:
    devices: int
    available: int
    rollouts: Mapping[str, int]


class StatusDesk:
    """Answers what the server is doing; counts are at most two seconds old, so that asking often costs nothing."""

    def __init__(
        self,
        store: Store,
        link: Link,
        *,
        broker_url: str,
        signing: str,
        problems: Sequence[Callable[[], Sequence[str]]],
    ) -> None:
        """Each of `problems` names what is wrong in one part of the server."""
        self._store = store
        self._link = link
        self._broker_url = broker_url
        self._signing = signing
        self._problems = problems
        self._started_s = time.monotonic()
        self._counted: tuple[float, _Counted] | None = None

    def status(self) -> Status:
        """The server now."""
        counted = self._count()
        problems = [text for ask in self._problems for text in ask()]
        if not self._link.connected:
            problems.append(f"no connection to the broker at {self._broker_url}: devices get nothing new")
        return Status(
            connected=self._link.connected,
            broker_url=self._broker_url,
            devices=counted.devices,
            available=counted.available,
            active=counted.rollouts.get(RolloutState.ACTIVE, 0),
            signing=self._signing,
            uptime_s=time.monotonic() - self._started_s,
            problems=tuple(problems),
        )

    def export(self, registry: CollectorRegistry) -> None:
        """Show the same numbers as Prometheus gauges."""
        connected = Gauge("fairlead_broker_connected", "1 while a broker has accepted the link", registry=registry)
        connected.set_function(lambda: float(self._link.connected))
        devices = Gauge("fairlead_devices", "Enrolled devices", registry=registry)
        devices.set_function(lambda: float(self._count().devices))
        available = Gauge("fairlead_devices_available", "Devices that say that they are online", registry=registry)
        available.set_function(lambda: float(self._count().available))
        rollouts = Gauge("fairlead_rollouts", "Rollouts by state", ["state"], registry=registry)
        for state in RolloutState:
            rollouts.labels(state.value).set_function(partial(self._in_state, state))

    def _in_state(self, state: RolloutState) -> float:
        return float(self._count().rollouts.get(state, 0))

    def _count(self) -> _Counted:
        now_s = time.monotonic()
        if self._counted is None or now_s - self._counted[0] >= _KEPT_S:
            with self._store.read() as reads:
                devices, available = reads.device_counts()
                self._counted = now_s, _Counted(devices, available, reads.rollout_counts())
        return self._counted[1]
