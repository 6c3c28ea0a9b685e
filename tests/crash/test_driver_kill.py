"""kill -9, a lost worker or lost power before and after every durable effect on the kernel's modules.

Two drivers, one of which needs the other in exactly its own build, and a service that holds them open: each time the
device ends with all of the old or all of the new release, loaded and running, also after one more boot; the two never
mix, and whatever the system had before the first installation is there again when that fails. This is invariant D14.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_agent.installers.crash import CRASH_POINTS
from device_agent.operations import Operation
from tests.fakes.driver_scene import FAILS, PANICS, SICK, DriverScene, Lost, driver_scene
from tests.fakes.elf import Module
from tests.fakes.http_server import FileServer, file_server
from tests.fakes.waiting import until

LOST: list[Lost] = ["agent", "worker", "power"]
THEIRS = Module(name="demo_core", version="theirs", build=b"theirs")


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    with file_server() as found:
        yield found


@pytest.fixture
def scene(tmp_path: Path, server: FileServer) -> Iterator[DriverScene]:
    with driver_scene(tmp_path, server) as found:
        yield found


CHANGING = [f"driver.{when}_{what}" for what in ("depmod", "unload", "load") for when in ("before", "after")]
PUTTING = ["driver.after_ban", "driver.before_file", "driver.after_file", "driver.after_stamp"]
KEEPING = ["backup.after_note", "backup.after_copy", "backup.after_list"]
ENDING = ["driver.after_lift", "backup.after_drop"]
ACTIVATE = [*PUTTING, *CHANGING, *KEEPING]
FORWARD = [*(("activate", point) for point in ACTIVATE), *(("commit", point) for point in ENDING)]
BACK = [*CHANGING, "backup.after_restore", *ENDING]
ONCE = [(lost, op, point) for lost in LOST for op, point in FORWARD if lost != "agent" or point in CHANGING]
"""Where nothing is loaded or unloaded, a lost agent leaves what lost power leaves."""
CALLS = range(1, 6)
"""Two of depmod, two of rmmod, one of modprobe, which brings the other module along."""


LEFT_OVER = ["left_over.after_part", "left_over.after_note"]


def test_every_point_is_in_the_matrix() -> None:
    ours = {point for point in CRASH_POINTS if point.startswith(("driver.", "backup.", "left_over."))}
    assert {*ACTIVATE, *BACK, *LEFT_OVER} == ours


@contextmanager
def commits_lost(scene: DriverScene) -> Iterator[None]:
    """The machine commits, and the tidying after it never ends."""
    carried_out = scene.shell.run_op

    def run_op(asked: Operation) -> dict[str, object]:
        return {"ok": False, "code": "worker", "detail": ""} if asked.op == "commit" else carried_out(asked)

    scene.shell.run_op = run_op
    yield
    scene.shell.run_op = carried_out


@pytest.mark.parametrize("lost", ["worker", "power"])
@pytest.mark.parametrize("point", [None, *LEFT_OVER])
@pytest.mark.parametrize("number", [3, SICK])
def test_an_update_after_one_whose_commit_was_lost(
    scene: DriverScene, number: int, point: str | None, lost: Lost
) -> None:
    """What that one kept is nobody's way back any more."""
    scene.install(1)
    with commits_lost(scene):
        scene.install(2)
        scene.kill_op, scene.kill_at = "activate", point
        scene.install(number, lost)
    assert scene.killed == (point is not None)
    runs = 2 if number == SICK or (lost == "worker" and point is not None) else 3
    scene.expect_running(runs)
    scene.expect(runs)


@pytest.mark.parametrize(("lost", "op", "point"), ONCE)
def test_an_update_that_is_killed_once(scene: DriverScene, op: str, point: str, lost: Lost) -> None:
    scene.install(1)
    scene.kill_op, scene.kill_at = op, point
    scene.install(2, lost)
    assert scene.killed == 1
    goes_on = lost != "worker" or op == "commit"
    assert scene.shell.outcomes[-1][:2] == ("d-2", "committed") if goes_on else scene.shell.outcomes[-1][2] == "worker"
    scene.expect(2 if goes_on else 1)
    if lost == "worker":
        scene.kill_op = None
        scene.install(3)
        scene.expect(3)


@pytest.mark.parametrize(("lost", "version"), [("agent", SICK), ("worker", FAILS), ("power", SICK)])
@pytest.mark.parametrize("point", BACK)
def test_a_rollback_that_is_killed_once(scene: DriverScene, point: str, version: int, lost: Lost) -> None:
    scene.install(1)
    scene.kill_op, scene.kill_at = "revert", point
    scene.install(version, lost)
    assert scene.killed == 1
    assert scene.shell.outcomes[-1][:2] == (f"d-{version}", "rolled_back")
    scene.expect(1)


@pytest.mark.parametrize("lost", ["worker", "power"])
@pytest.mark.parametrize("point", ACTIVATE)
def test_a_first_installation_over_another_owners_driver(scene: DriverScene, point: str, lost: Lost) -> None:
    """What the distribution or the owner had put there, in whatever form, is there again where it fails."""
    scene.kernel.install(THEIRS, "updates/dkms/demo-core.ko.xz")
    scene.kernel.machine().modprobe("demo_core")
    (scene.kernel.root / "etc/modules-load.d/theirs.conf").write_text("demo_core\n")
    scene.remember()
    scene.kill_op, scene.kill_at = "activate", point
    scene.install(1, lost)
    assert scene.killed == 1
    scene.expect(None if lost == "worker" else 1)


@pytest.mark.parametrize("point", ACTIVATE)
def test_an_update_that_is_killed_every_time_is_given_up(scene: DriverScene, point: str) -> None:
    """Rule R19: attempts are bounded, and a device that goes down while it loads a module tries that twice.

    A point that is not passed again, because the step is done, is no kill.
    """
    scene.install(1)
    scene.kill_op, scene.kill_at, scene.every_time = "activate", point, True
    scene.install(2, "power")
    assert 1 <= scene.killed <= 4
    loading = point in ("driver.before_load", "driver.after_load")
    gives_up = scene.killed == (2 if loading else 4)
    if gives_up:
        assert scene.shell.outcomes[-1] == ("d-2", "rolled_back", "crashed" if loading else "interrupted")
    scene.expect(1 if gives_up else 2)


@pytest.mark.parametrize("when", ["before", "torn"])
@pytest.mark.parametrize("call", CALLS)
def test_power_is_lost_in_a_tool(scene: DriverScene, call: int, when: str) -> None:
    """Every call, not only the first of its kind; `torn` leaves half of modules.dep."""
    scene.install(1)
    scene.kill_op = "activate"
    scene.kernel.kill_at(call, when)
    scene.install(2, "power")
    assert scene.killed == 1
    scene.expect(2)


@pytest.mark.parametrize("when", ["before", "torn"])
@pytest.mark.parametrize("call", CALLS)
def test_power_is_lost_in_a_tool_on_the_way_back(scene: DriverScene, call: int, when: str) -> None:
    scene.install(1)
    scene.install(2)
    scene.kernel.calls()
    scene.kill_op = "revert"
    scene.on_revert = lambda: scene.kernel.kill_at(call, when)
    scene.install(SICK, "power")
    assert scene.killed == 1
    scene.expect(2)


def test_a_driver_that_takes_the_device_down_does_so_in_attempts_and_never_at_boot(scene: DriverScene) -> None:
    scene.install(1)
    scene.kill_op, scene.every_time = "activate", True
    scene.install(PANICS, "power")
    assert scene.shell.outcomes[-1] == (f"d-{PANICS}", "rolled_back", "crashed")
    assert scene.kernel.panics() == scene.killed == 2
    scene.expect(1)


def test_power_is_lost_on_probation(scene: DriverScene) -> None:
    """The boot loads none of it; the next check does."""
    scene.install(1)
    scene.shell.publish(scene.deployment(2))
    until(lambda: scene.shell.carry_on() or scene.shell.record.stage == "probation")
    scene.cut_power()
    assert scene.kernel.loaded() == scene.before[1]
    scene.shell.start()
    scene.shell.settle()
    assert scene.shell.outcomes[-1] == ("d-2", "committed", None)
    scene.expect(2)
