"""The machine against the numbered invariants, in a model device whose power may fail at any point."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from device_agent.core.effects import Activate, Check, Fetch, Revert, Stage
from device_agent.core.events import Accepted, Activated, Assigned, Commanded, Fetched, Refused, Reverted
from device_agent.core.plan import PlannedDeployment
from device_agent.core.slots import active_content
from fleet_protocol.manifest import Window
from tests.unit.device_core.model_device import ModelDevice
from tests.unit.device_core.plans import deployment, plan, release

PACKAGES = ("p", "q")
_CODES = {
    Fetch: ("unreachable", "busy", "digest", "no-space"),
    Stage: ("no-space", "archive", "worker"),
    Activate: ("start", "io"),
    Revert: ("io", "worker"),
    Check: ("unhealthy", "crashed", "unhealthy"),
}


@st.composite
def deployments(draw: st.DrawFn) -> PlannedDeployment:
    package = draw(st.sampled_from(PACKAGES))
    counter = draw(st.integers(2, 4))
    prefix = draw(st.sampled_from(("d", "d", "e")))
    fallback = draw(st.none() | st.integers(1, 3))
    return deployment(
        counter,
        f"{prefix}-{package}-{counter}",
        package=package,
        state=draw(st.sampled_from(("active", "active", "active", "held", "recalled"))),
        share_bp=draw(st.sampled_from((10_000, 10_000, 10_000, 0))),
        fallback=None if fallback is None else release(fallback, package),
        refusal=draw(st.sampled_from((None, None, None, None, "unlisted"))),
        window=draw(st.sampled_from((None, None, None, Window(start_min=600, end_min=660)))),
        probation_s=draw(st.sampled_from((0, 30))),
    )


class DeviceMachine(RuleBasedStateMachine):
    """Hypothesis plays server, network, operator, disk and power company."""

    def __init__(self) -> None:
        super().__init__()
        self.device = ModelDevice()
        self.sequence = {"g": 0, "h": 0}
        self.device.send(Assigned, group="g")
        self.commands = 0

    @initialize(installed=st.lists(st.sampled_from(("p", "q", "p")), max_size=3))
    def install_some(self, installed: list[str]) -> None:
        """Most devices have something installed already; some have two slots full."""
        for counter, package in enumerate(installed, start=1):
            self._publish([deployment(counter, f"d-{package}-{counter}", package=package, probation_s=0)])
            self.device.settle()

    @rule(
        listed=st.lists(deployments(), max_size=4, unique_by=lambda d: d.id),
        rise=st.sampled_from((1, 1, 1, 3, 0, -1)),
        floor=st.sampled_from((0, 0, 0, 2, 3)),
        lasting_s=st.sampled_from((10_000_000, 10_000_000, 10_000_000, 60)),
    )
    def publish(self, listed: list[PlannedDeployment], rise: int, floor: int, lasting_s: int) -> None:
        floors = {package: floor for package in PACKAGES if floor}
        self._publish(listed, rise, floors=floors, expires_s=self.device.wall_s + lasting_s)

    @rule(package=st.sampled_from(PACKAGES), probation_s=st.sampled_from((0, 30)), done=st.integers(0, 6))
    def release_something_newer(self, package: str, probation_s: int, done: int) -> None:
        """The usual case: a new release for everybody, and the device gets some way with it."""
        content = active_content(self.device.record, package)
        counter = 1 if content is None else content.release.counter + 1
        planned = deployment(counter, f"n-{package}-{counter}", package=package, probation_s=probation_s)
        self._publish([*self._others(package), planned])
        self._go_on(done)

    @rule(
        fallback=st.sampled_from((-1, -1, 0, 1)),
        floor=st.sampled_from((0, 0, 1, 2, 3)),
        done=st.integers(0, 3),
    )
    def recall(self, fallback: int, floor: int, done: int) -> None:
        """What is installed or tried is recalled, towards the release before it, another one, or none."""
        record = self.device.record
        contents = [active_content(record, package) for package in PACKAGES]
        names = {content.deployment: content.release for content in contents if content is not None}
        if record.attempt is not None and record.attempt.purpose == "install":
            names[record.attempt.deployment] = record.attempt.release
        recalled = [
            deployment(
                bad.counter,
                name,
                package=bad.package,
                state="recalled",
                fallback=release(bad.counter + fallback, bad.package) if bad.counter + fallback > 0 else None,
            )
            for name, bad in names.items()
        ]
        self._publish(recalled, floors=dict.fromkeys(PACKAGES, floor))
        self._go_on(done)

    @rule(steps=st.integers(1, 6), twice=st.booleans())
    def go_on(self, steps: int, twice: bool) -> None:
        """Time passes and work succeeds; every effect may run twice."""
        self._go_on(steps, twice=twice)

    @precondition(lambda self: self.device.queue)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        codes = _CODES.get(type(self.device.queue[0]), ("io",))
        self.device.run("fail", data.draw(st.sampled_from(codes)))

    @precondition(lambda self: self.device.queue)
    @rule(code=st.sampled_from(("no-space", "io", "worker")), times=st.integers(2, 5))
    def fail_over_and_over(self, code: str, times: int) -> None:
        """D5: a cause that may be gone by the next try, and never is."""
        for _ in range(times):
            self.device.run("fail", code)
            self.device.wake()

    @precondition(lambda self: self.device.record.stage == "rolling_back")
    @rule(code=st.sampled_from(("io", "start", "start", "worker", "ok")), times=st.integers(1, 3))
    def go_back_with_trouble(self, code: str, times: int) -> None:
        for _ in range(times):
            self.device.run("ok" if code == "ok" else "fail", code)
            self.device.wake()

    @rule(package=st.sampled_from(PACKAGES), again=st.booleans())
    def have_nothing_whole_to_go_back_to(self, package: str, again: bool) -> None:
        """R14: what was kept has rotted, and the new release is sick. An operator may want to go back all the same."""
        self.release_something_newer(package, 30, 3)
        attempt = self.device.record.attempt
        if self.device.record.stage not in ("switching", "probation") or attempt is None or attempt.previous is None:
            return
        self.recall(-1, 0, 0)
        self.device.rot(attempt.release.package)
        self._go_on(2)
        if again:
            self.command("rollback", attempt.release.package)
            self._go_on(2)

    @precondition(lambda self: self.device.queue)
    @rule(ending=st.sampled_from(("before", "midway", "after")), times=st.sampled_from((1, 1, 1, 4)))
    def lose_power_while_working(self, ending: str, times: int) -> None:
        for _ in range(times):
            self.device.run(ending)

    @rule(times=st.sampled_from((1, 1, 1, 4)))
    def lose_power(self, times: int) -> None:
        for _ in range(times):
            self.device.crash()

    @rule(seconds_s=st.sampled_from((0.0, 1.0, 15.0, 3_600.0)), luck=st.sampled_from((0.0, 0.5, 0.99)))
    def pass_time(self, seconds_s: float, luck: float) -> None:
        self.device.luck = luck
        self.device.pass_time(seconds_s)

    @rule(name=st.sampled_from(("rollback", "retry")), package=st.sampled_from((None, *PACKAGES)))
    def command(self, name: str, package: str | None) -> None:
        self.commands += 1
        if name == "retry":
            self.device.told_to_retry()
        self.device.send(Commanded, id=f"c-{self.commands}", name=name, package=package)

    @rule(kind=st.sampled_from(("attack", "sign", "rot p", "rot q", "group g", "group h", "stale")))
    def noise(self, kind: str) -> None:
        """What may happen at any time and must not matter much."""
        verb, _, name = kind.partition(" ")
        if verb == "attack":
            self.device.send(Refused, code="signature")
        elif verb == "sign":
            self.device.sign()
        elif verb == "rot":
            self.device.rot(name)
        elif verb == "group":
            self._assign(name)
        else:
            self._send_stale()

    @precondition(lambda self: self.device.record.stage == "probation")
    @rule(answers=st.lists(st.sampled_from((None, "unhealthy", "silent")), min_size=1, max_size=8))
    def wait_out_the_probation(self, answers: list[str | None]) -> None:
        """D4: whatever the checks answer, the probation ends after a bounded number of ticks."""
        for turn in range(100):
            if self.device.record.stage != "probation":
                return
            answer = answers[turn % len(answers)]
            if self.device.queue and answer != "silent":
                self.device.run("ok" if answer is None else "fail", answer)
            else:
                self.device.wake()
        raise AssertionError("D4: the probation does not end")

    @invariant()
    def the_running_slot_is_the_committed_or_the_tried_one(self) -> None:
        """D10, at every moment: what runs is an old release or the attempt's, and never something half written."""
        record = self.device.record
        for package, link in self.device.links.items():
            allowed: set[Any] = {record.packages[package].active}
            if record.attempt is not None and record.attempt.release.package == package:
                allowed.add(record.attempt.slot)
            assert link in allowed
            assert link is None or self.device.slots[package][link] not in (None, "partial")

    def _publish(self, listed: list[PlannedDeployment], rise: int = 1, **changes: Any) -> None:
        group = self.device.record.group or "g"
        sequence = max(1, self.sequence[group] + rise)
        self.sequence[group] = max(self.sequence[group], sequence)
        lasting: dict[str, Any] = {"expires_s": self.device.wall_s + 10_000_000.0}
        self.device.send(Accepted, plan=plan(sequence, *listed, **({"group": group} | lasting | changes)))

    def _others(self, package: str) -> list[PlannedDeployment]:
        planned = () if self.device.record.plan is None else self.device.record.plan.deployments
        return [d for d in planned if d.release.package != package]

    def _go_on(self, steps: int, *, twice: bool = False) -> None:
        for _ in range(steps):
            if self.device.queue:
                self.device.run("ok", twice=twice)
            else:
                self.device.wake()

    def _assign(self, group: str) -> None:
        if group != self.device.record.group:
            self.sequence[group] = 0
        self.device.send(Assigned, group=group)

    def _send_stale(self) -> None:
        """R2: what belongs to another deployment, or to no stage, changes nothing."""
        before = self.device.record
        for kind in (Fetched, Activated, Reverted):
            self.device.send(kind, deployment="d-of-yesterday")
        assert self.device.record == before

    def teardown(self) -> None:
        self.device.settle()
        self.device.check_settled()


TestDeviceMachine = DeviceMachine.TestCase
TestDeviceMachine.settings = settings(max_examples=80, stateful_step_count=60)
