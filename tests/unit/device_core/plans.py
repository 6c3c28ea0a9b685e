"""Plans, releases and a bench that drives the machine, for the kernel's tests."""

import hashlib
from typing import Any

from device_agent.core.effects import Commit, Discard, Effect, Report
from device_agent.core.events import (
    Accepted,
    Activated,
    Assigned,
    Checked,
    Commanded,
    Event,
    Failed,
    Fetched,
    Moment,
    Reverted,
    Staged,
    Started,
    Ticked,
    Tidied,
)
from device_agent.core.machine import initial, step
from device_agent.core.plan import Plan, PlannedDeployment, PlannedRelease, PlannedTarget
from device_agent.core.record import Attempt, Pauses, Record
from fleet_protocol.install import HealthCheck, Install
from fleet_protocol.messages import AttemptReport

DEVICE = "node-1"
GROUP = "line-1"
PACKAGE = "my-service"
WALL_S = 1_800_000_000.0
"""08:00 UTC on a Friday."""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def release(counter: int, package: str = PACKAGE, *, urls: tuple[str, ...] = (), check: bool = True) -> PlannedRelease:
    health = HealthCheck(kind="exec", target="check", interval_s=10, timeout_s=5, failures=2) if check else None
    target = PlannedTarget(
        path=f"{package}/1.{counter}.0/x86_64.tar.zst",
        length=100,
        sha256=sha256(f"{package} {counter}"),
        kind="service",
        format="tar.zst",
        unpacked_size=1_000,
        unpacked_files=3,
        install=Install(exec=("bin/serve",), stop_s=5, check=health),
        urls=urls,
    )
    return PlannedRelease(package=package, version=f"1.{counter}.0", counter=counter, targets=(target,))


def deployment(counter: int, name: str | None = None, *, package: str = PACKAGE, **changes: Any) -> PlannedDeployment:
    values: dict[str, Any] = {
        "id": name or f"d-{package}-{counter}",
        "release": release(counter, package),
        "state": "active",
        "share_bp": 10_000,
        "salt": "6f2c9e01",
        "devices": (),
        "fallback": None,
        "not_before_s": None,
        "window": None,
        "probation_s": 60,
        "refusal": None,
    }
    return PlannedDeployment(**(values | changes))


def plan(sequence: int, *deployments: PlannedDeployment, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "group": GROUP,
        "sequence": sequence,
        "digest": sha256(repr((sequence, deployments, sorted(changes.items())))),
        "root": 1,
        "expires_s": WALL_S + 7 * 86_400,
        "deployments": deployments,
    }
    return Plan(**(values | changes))


class Bench:
    """A machine on a bench: events in, the record and the effects out. Time passes when it is told to.

    What is to be tidied is tidied at once, but where `tidies` is false.
    """

    def __init__(self, record: Record | None = None, *, assigned: bool = True, tidies: bool = True) -> None:
        self.tidies = tidies
        self.record = initial(DEVICE) if record is None else record
        self.effects: tuple[Effect, ...] = ()
        self.mono_s = 1_000.0
        self.luck = 0.5
        self.started_wall_s = WALL_S
        if assigned:
            self.send(Assigned, group=GROUP)

    @property
    def at(self) -> Moment:
        return Moment(wall_s=self.started_wall_s + self.mono_s - 1_000.0, mono_s=self.mono_s, luck=self.luck)

    @property
    def attempt(self) -> Attempt:
        assert self.record.attempt is not None
        return self.record.attempt

    @property
    def work(self) -> tuple[Effect, ...]:
        """What the last event asked for, but for reports."""
        return tuple(effect for effect in self.effects if not isinstance(effect, Report))

    @property
    def reports(self) -> list[AttemptReport | None]:
        """What the last event had reported."""
        return [effect.report.attempt for effect in self.effects if isinstance(effect, Report)]

    def send(self, kind: type[Event], **members: Any) -> tuple[Effect, ...]:
        """One event now; `work` and `reports` then tell of its effects."""
        self.record, self.effects = step(self.record, kind(at=self.at, **members))
        for effect in self.effects if self.tidies else ():
            if isinstance(effect, (Commit, Discard)):
                op: Any = type(effect).__name__.lower()
                self.record, _ = step(self.record, Tidied(at=self.at, package=effect.package, op=op))
        return self.work

    def wait(self, seconds_s: float) -> tuple[Effect, ...]:
        """Let time pass, then a tick."""
        self.mono_s += seconds_s
        return self.send(Ticked)

    def accept(self, sequence: int, *deployments: PlannedDeployment, **changes: Any) -> tuple[Effect, ...]:
        return self.send(Accepted, plan=plan(sequence, *deployments, **changes))

    def command(self, name: str, package: str | None = None, *, id: str = "c-1") -> tuple[Effect, ...]:  # noqa: A002
        return self.send(Commanded, id=id, name=name, package=package)

    def end(self, kind: type[Event], **members: Any) -> tuple[Effect, ...]:
        """The running effect of the attempt ends."""
        return self.send(kind, deployment=self.attempt.deployment, **members)

    def fail(self, code: str, detail: str = "", **members: Any) -> tuple[Effect, ...]:
        return self.end(Failed, code=code, detail=detail, **members)

    def to(self, stage: str) -> None:
        """Drive a new attempt to `stage`, everything going well."""
        tree = sha256(f"tree {self.attempt.release.counter}")
        ends = {"downloading": (Fetched, {}), "installing": (Staged, {"tree": tree}), "switching": (Activated, {})}
        while self.record.stage != stage:
            kind, members = ends[self.record.stage]
            self.end(kind, **members)

    def prove(self) -> None:
        """Let the release on probation pass it."""
        while self.record.stage == "probation":
            self.wait(10)
            if self.record.stage == "probation":
                self.end(Checked, code=None, detail="")

    def install(self, sequence: int, *deployments: PlannedDeployment) -> None:
        """A plan whose installation succeeds."""
        self.accept(sequence, *deployments)
        self.to("probation")
        self.prove()
        assert self.record.stage == "idle"
        self.send(Ticked)

    def roll_back(self, code: str = "unhealthy") -> None:
        """The attempt in `switching` fails and is undone."""
        self.to("switching")
        self.fail(code)
        self.end(Reverted)

    def restart(self, pauses: Pauses | None = None) -> tuple[Effect, ...]:
        """The agent dies and starts again, on another boot's clock, perhaps with other settings."""
        self.started_wall_s = self.at.wall_s
        self.mono_s = 1_000.0
        return self.send(Started, pauses=pauses or Pauses())
