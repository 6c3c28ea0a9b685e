"""The driver of the machine: persist first, then act; and the lanes of its workers."""

from dataclasses import replace

import pytest

from device_agent.core.effects import Cancel, Effect, Fetch
from device_agent.core.events import Event, Refused, Ticked
from device_agent.core.record import Record
from device_agent.driver import Driver
from device_agent.inbox import Inbox
from device_agent.lane import Lane
from tests.fakes.agent_ports import FakeClock, FakeJournal, FakeWorker, quiet_log


class World:
    def __init__(self) -> None:
        self.clock, self.journal = FakeClock(), FakeJournal()
        self.order: list[str] = []
        self.driver = Driver(
            Record(),
            self._step,
            self.journal,
            noted=lambda event, before: self.order.append(f"noted {before.why}"),
            act=self._act,
            clock=self.clock,  # type: ignore[arg-type]
            log=quiet_log(),
        )

    def _step(self, record: Record, event: Event) -> tuple[Record, tuple[Effect, ...]]:
        if isinstance(event, Refused):
            return replace(record, why=event.code, wake_s=self.clock.now_s + 10), (Fetch(), Cancel())
        return record, ()

    def _act(self, effect: Effect) -> None:
        self.order.append(f"{type(effect).__name__} with {len(self.journal.saved)} saved")

    def refused(self, code: str) -> Refused:
        return Refused(at=self.clock.moment(), code=code)


@pytest.fixture
def world() -> World:
    return World()


def test_the_record_is_on_disk_before_its_effects(world: World) -> None:
    assert world.driver.apply(world.refused("parse"))
    assert world.journal.saved[-1].why == "parse"
    assert world.order == ["noted no manifest yet", "Fetch with 1 saved", "Cancel with 1 saved"]


def test_an_unchanged_record_is_not_written(world: World) -> None:
    assert world.driver.apply(Ticked(at=world.clock.moment()))
    assert world.journal.saved == []


def test_nothing_happens_while_the_journal_is_full(world: World) -> None:
    world.journal.full = True
    assert not world.driver.apply(world.refused("parse"))
    assert not world.driver.apply(world.refused("size"))
    assert world.order == []
    assert world.driver.record == Record()
    wake_s = world.driver.wake_s()
    assert wake_s is not None
    world.journal.full = False
    world.driver.tick()
    assert world.order == []
    world.clock.now_s = wake_s
    world.driver.tick()
    assert [record.why for record in world.journal.saved] == ["parse", "size"]


def test_ticks_come_when_the_record_wants_them(world: World) -> None:
    assert world.driver.wake_s() is None
    world.driver.apply(world.refused("parse"))
    assert world.driver.wake_s() == world.clock.now_s + 10
    world.order.clear()
    world.driver.tick()
    assert world.order == []
    world.clock.now_s += 10
    world.driver.tick()
    assert world.order == ["noted parse"]
    after_s = world.driver.wake_s()
    assert after_s is not None
    assert after_s > world.clock.now_s, "a moment in the past does not make the loop spin"


def _turn(inbox: Inbox) -> None:
    while (happening := inbox.take(0.0)) is not None:
        happening()


def test_a_lane_runs_one_after_the_other() -> None:
    worker, inbox, answers = FakeWorker(), Inbox(), []
    lane = Lane(worker, inbox)
    lane.add("fetch", {}, lambda answer: answers.append("fetch"))
    lane.add("stage", {}, lambda answer: answers.append("stage"))
    assert worker.history == ["fetch"]
    worker.answer("fetch", {})
    assert answers == []
    _turn(inbox)
    worker.answer("stage", {})
    _turn(inbox)
    assert answers == ["fetch", "stage"]
    assert lane.idle


def test_a_cancelled_lane_hears_nothing_of_what_it_left() -> None:
    worker, inbox, answers = FakeWorker(), Inbox(), []
    lane = Lane(worker, inbox)
    lane.add("fetch", {}, lambda answer: answers.append("fetch"))
    lane.add("stage", {}, lambda answer: answers.append("stage"))
    worker.answer("fetch", {})
    lane.cancel()
    lane.add("discard", {}, lambda answer: answers.append("discard"))
    _turn(inbox)
    assert answers == []
    worker.answer("discard", {})
    _turn(inbox)
    assert answers == ["discard"]
