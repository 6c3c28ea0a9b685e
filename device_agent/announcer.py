"""What the device says of itself in plain JSON: state, heartbeat, telemetry and health, each in its time.

1. State is retained: published whenever it changes, and at every connect; a download's progress only now and then.
2. Readings are for now: they are published while there is a connection, and never kept for later.
3. Readings that are due together go out together, so that the device wakes once.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from device_agent import AGENT_VERSION
from device_agent.clock import Clock
from device_agent.core.record import Record
from device_agent.core.reports import installed
from device_agent.log import Log
from device_agent.ports import Link, Probes
from device_agent.probes.judgement import worst
from device_agent.settings import AgentSettings
from fleet_protocol import strict_json, topics
from fleet_protocol.errors import FleetError
from fleet_protocol.messages import Health, Heartbeat, State
from fleet_protocol.topics import TopicType

PROGRESS_S: Final = 5.0
"""Least time between two states that differ in their progress only."""
_TOGETHER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Round:
    """One kind of reading; `read` gives None where there is nothing to say."""

    kind: TopicType
    interval_s: float
    read: Callable[[Record], Mapping[str, Any] | None]


class Announcer:
    """Used by the loop only. Times are monotonic."""

    def __init__(self, settings: AgentSettings, link: Link, probes: Probes, clock: Clock, log: Log) -> None:
        self._settings, self._link, self._probes, self._clock, self._log = settings, link, probes, clock, log
        intervals = settings.intervals
        self._rounds: tuple[_Round, ...] = (
            _Round(topics.HEARTBEAT, intervals.heartbeat_s, self._heartbeat),
            _Round(topics.TELEMETRY, intervals.telemetry_s, self._telemetry),
            _Round(topics.HEALTH, intervals.health_s, self._health),
        )
        self._due_s: dict[TopicType, float] = {}
        self._shown: dict[str, Any] = {}
        self._shown_s = 0.0
        self._held_back = False
        self._progress: float | None = None
        self._attack: str | None = None

    def connected(self, record: Record) -> None:
        """Say everything now, and count the intervals from here."""
        self._shown = {}
        self._announce(record, self._rounds)
        self.tend(record)

    def progress(self, share: float | None) -> None:
        """Note how far the download is, 0 to 1."""
        self._progress = share

    def wake_s(self) -> float | None:
        """When something is due next; None while there is nobody to tell."""
        if not self._link.connected:
            return None
        return min([*self._due_s.values(), *([self._shown_s + PROGRESS_S] if self._held_back else [])], default=None)

    def tend(self, record: Record) -> None:
        """Publish what is due."""
        if not self._link.connected:
            return
        self._state(record)
        now_s = self._clock.mono_s()
        if min(self._due_s.values(), default=now_s + 1.0) > now_s:
            return
        due = [r for r in self._rounds if self._due_s.get(r.kind, 0.0) <= now_s + min(_TOGETHER_S, r.interval_s / 4)]
        self._announce(record, due)
        self._log.flush()

    def _announce(self, record: Record, rounds: Sequence["_Round"]) -> None:
        """Read first and publish then, all at once: the link's thread wakes once for it."""
        readings = [(round_.kind, round_.read(record)) for round_ in rounds]
        now_s = self._clock.mono_s()
        for round_ in rounds:
            self._due_s[round_.kind] = now_s + round_.interval_s
        for kind, value in readings:
            if value is not None:
                self._publish(kind, value)

    def _state(self, record: Record) -> None:
        """Rule 1."""
        flat = self.state(record).to_flat()
        changed = {name for name in flat.keys() | self._shown.keys() if flat.get(name) != self._shown.get(name)}
        changed.discard("time")
        now_s = self._clock.mono_s()
        self._held_back = changed == {"progress"} and now_s < self._shown_s + PROGRESS_S
        if changed and not self._held_back:
            self._shown, self._shown_s = flat, now_s
            self._publish(topics.STATE, flat)

    def state(self, record: Record) -> State:
        """The device as a dashboard shows it."""
        attempt = record.attempt
        return State(
            time=round(self._clock.wall_s(), 3),
            stage=record.stage,
            why=record.why,
            group=record.group,
            sequence=record.obeyed,
            progress=self._progress if record.stage == "downloading" else None,
            attempt_package=None if attempt is None else attempt.release.package,
            attempt_version=None if attempt is None else attempt.release.version,
            attack=self._newest_attack(record),
            installed={one.package: one.version for one in installed(record)},
        )

    def health(self) -> Health:
        """One round of checks."""
        checks = tuple(self._probes.checks())
        return Health(time=round(self._clock.wall_s(), 3), verdict=worst(checks), checks=checks)

    def note_attack(self, code: str) -> None:
        """Show this refusal in the state."""
        self._attack = code

    def _newest_attack(self, record: Record) -> str | None:
        return self._attack if self._attack in record.attacks else None

    def _heartbeat(self, record: Record) -> Mapping[str, Any]:
        beat = Heartbeat(
            time=round(self._clock.wall_s(), 3),
            uptime_s=round(time.clock_gettime(time.CLOCK_BOOTTIME), 1),
            stage=record.stage,
            sequence=record.obeyed,
            agent=AGENT_VERSION,
        )
        return asdict(beat)

    def _telemetry(self, _record: Record) -> Mapping[str, Any] | None:
        try:
            return {"time": round(self._clock.wall_s(), 3), **self._probes.telemetry()}
        except OSError as error:
            self._log.warning("telemetry", str(error))
            return None

    def _health(self, _record: Record) -> Mapping[str, Any] | None:
        try:
            return asdict(self.health())
        except (OSError, FleetError) as error:
            self._log.warning("health", str(error))
            return None

    def _publish(self, kind: TopicType, value: Mapping[str, Any]) -> None:
        payload = strict_json.dumps(value)
        if len(payload) > kind.max_size:
            self._log.warning("size", f"{kind.name} of {len(payload)} bytes is not sent")
            return
        topic = self._settings.topics.of(kind, device=self._settings.device)
        self._link.publish(topic, payload, qos=kind.qos, retain=kind.retain)
