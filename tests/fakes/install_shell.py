"""The device machine with a real installer and a journal, in virtual time, killed wherever a test says."""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from device_agent.core.codec import from_json, to_json
from device_agent.core.effects import Cancel, Effect, Report
from device_agent.core.events import Accepted, Assigned, Event, Failed, Moment, ReportQueued, Started, Ticked
from device_agent.core.machine import initial, step
from device_agent.core.plan import Plan, PlannedDeployment, PlannedRelease
from device_agent.core.record import Record
from device_agent.operations import Operation, event, operation
from fleet_protocol.errors import FleetError
from fleet_protocol.manifest import DeploymentState
from tests.fakes.install_driver import DeviceUnderTest

EPOCH_S = 1_800_000_000.0


def deployment(name: str, release: PlannedRelease, state: DeploymentState = "active") -> PlannedDeployment:
    """A deployment that every device takes part in."""
    return PlannedDeployment(
        id=name,
        release=release,
        state=state,
        share_bp=10_000,
        salt="00000000",
        devices=(),
        fallback=None,
        not_before_s=None,
        window=None,
        probation_s=10,
        refusal=None,
    )


class KilledError(Exception):
    """The worker died without an answer."""


class InstallShell:
    """Persists first, then acts, as the loop does. `run_op` is how an operation is carried out."""

    def __init__(
        self, device: DeviceUnderTest, run_op: Callable[[Operation], dict[str, object]], *, kernel: str = ""
    ) -> None:
        self.device, self.run_op, self.kernel = device, run_op, kernel
        self._now_s = 0.0
        self._sequence = 0
        self._journal = json.dumps(to_json(initial("node-1")))
        self._effects: deque[Effect] = deque()
        self.outcomes: list[tuple[str, str | None, str | None]] = []
        """Deployment, outcome and code of each end of an attempt."""
        self.attacks: list[str] = []
        """Codes of attacks, in the order in which they were reported."""
        self.start()
        self.apply(Assigned(at=self.now(), group="line-1"))

    @property
    def record(self) -> Record:
        """As it is on the disk."""
        return from_json(Record, json.loads(self._journal))

    def now(self) -> Moment:
        return Moment(wall_s=EPOCH_S + self._now_s, mono_s=self._now_s, luck=0.5)

    def start(self) -> None:
        """A new agent after the old one is gone: all it knows is the journal."""
        self._effects.clear()
        for service in list(self.device.supervisor.names()):
            self.device.supervisor.restart(service)  # as the watch does at its start
        self.apply(Started(at=self.now(), kernel=self.kernel))

    def publish(self, *deployments: PlannedDeployment) -> None:
        """A manifest with these deployments was accepted."""
        self._sequence += 1
        plan = Plan(
            group="line-1",
            sequence=self._sequence,
            digest=f"{self._sequence:064}",
            root=1,
            expires_s=EPOCH_S * 2,
            deployments=deployments,
        )
        self.apply(Accepted(at=self.now(), plan=plan))

    def apply(self, happened: Event) -> None:
        """One step: the journal, and then the effects are due."""
        record, effects = step(self.record, happened)
        self._journal = json.dumps(to_json(record))
        if Cancel() in effects:
            self._effects.clear()
        self._effects.extend(effects)

    def settle(self, *, most: int = 200) -> None:
        """Carry on until nothing is under way and the attempt, if there is one, has ended. Raises KilledError."""
        for _ in range(most):
            if self._effects:
                self._act(self._effects.popleft())
            elif self.record.attempt is not None:
                wake_s = self.record.wake_s
                assert wake_s is not None, f"nothing would ever happen: {self.record.why}"
                self._now_s = max(self._now_s, wake_s)
                self.apply(Ticked(at=self.now()))
            else:
                return
        raise AssertionError(f"no end: {self.record.why}")

    def carry_on(self) -> None:
        """Do what is due, or let the time pass until something is: one step towards `settle`."""
        try:
            self.settle(most=8)
        except AssertionError:
            return

    def worker_lost(self, done: Operation) -> None:
        """The agent lives and sees that its worker died."""
        answer = {"ok": False, "code": "worker", "detail": "killed"}
        happened = event(done, answer, self.now())
        if happened is not None:
            self.apply(happened)

    def _act(self, effect: Effect) -> None:
        if isinstance(effect, Report):
            attempt = effect.report.attempt
            if effect.report.attack is not None:
                self.attacks.append(effect.report.attack)
            if attempt is not None and attempt.outcome is not None:
                self.outcomes.append((attempt.deployment, attempt.outcome, attempt.code))
            self.apply(ReportQueued(at=self.now(), counter=effect.report.counter))
            return
        asked = operation(effect, self.record)
        if asked is None:
            return
        happened = event(asked, self.run_op(asked), self.now())
        if isinstance(happened, Failed):
            happened = replace(happened, retry_after_s=None)
        if happened is not None:
            self.apply(happened)


def in_this_process(device: DeviceUnderTest) -> Callable[[Operation], dict[str, object]]:
    """Operations without a worker process, for what is not about kills."""

    def run(asked: Operation) -> dict[str, object]:
        try:
            return {"ok": True, "result": device.run(asked.op, **asked.args)}
        except FleetError as error:
            return {"ok": False, "code": error.code, "detail": error.detail}

    return run
