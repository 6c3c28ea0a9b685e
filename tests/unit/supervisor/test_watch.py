"""The watch: services are kept running, with backoff, and nothing is left behind."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from device_agent.supervisor.service_log import SIZE_MOST
from device_agent.supervisor.spec import ServiceSpec
from device_agent.supervisor.supervisor import Supervisor
from device_agent.supervisor.watch import Watch
from tests.fakes.waiting import until

SLEEP = ServiceSpec(exec=("/bin/sleep", "1000"), cwd="/", env={}, version="1", stop_s=5.0)


def python(code: str) -> ServiceSpec:
    return ServiceSpec(exec=(sys.executable, "-I", "-S", "-c", code), cwd="/", env={}, version="1", stop_s=5.0)


@contextmanager
def watched(root: Path, *, patience: float = 0.01) -> Iterator[tuple[Supervisor, Watch, list[tuple[str, str]]]]:
    supervisor, notices = Supervisor(root), list[tuple[str, str]]()
    watch = Watch(supervisor, lambda service, text: notices.append((service, text)), patience=patience)
    watch.start()
    try:
        yield supervisor, watch, notices
    finally:
        watch.stop()
        for name in list(supervisor.names()):
            supervisor.stop(name, 0.0)


def kill(supervisor: Supervisor, service: str) -> int:
    pid = supervisor.status(service).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def test_what_ends_is_started_again_and_counted(tmp_path: Path) -> None:
    with watched(tmp_path) as (supervisor, watch, notices):
        supervisor.start("web", SLEEP)
        watch.refresh()
        for times in (1, 2):
            pid = kill(supervisor, "web")
            until(lambda times=times: supervisor.status("web").restarts == times)
            until(lambda pid=pid: supervisor.status("web").pid not in (pid, None))
        until(lambda: notices == [("web", "started")] * 2)
        assert [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE] == []


def test_what_ought_to_run_is_started_at_the_start(tmp_path: Path) -> None:
    """After a power cut, and after an orderly exit of the agent: neither is the service's fault."""
    Supervisor(tmp_path).start("web", SLEEP)
    Supervisor(tmp_path).stop_all()
    with watched(tmp_path) as (supervisor, _, _):
        status = until(lambda: (found := supervisor.status("web")).running and found)
        assert status.restarts == 0


def test_what_was_stopped_stays_stopped(tmp_path: Path) -> None:
    with watched(tmp_path) as (supervisor, watch, notices):
        supervisor.start("web", SLEEP)
        watch.refresh()
        supervisor.stop("web")
        watch.refresh()
        supervisor.start("other", SLEEP)
        watch.refresh()
        kill(supervisor, "other")
        until(lambda: notices == [("other", "started")])
        assert not supervisor.status("web").running


def test_what_fails_to_start_is_tried_again_with_backoff(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    spec = ServiceSpec(exec=(str(program),), cwd="/", env={}, version="1", stop_s=5.0)
    with watched(tmp_path) as (supervisor, watch, notices):
        supervisor.start("web", spec)
        watch.refresh()
        program.rename(tmp_path / "gone")
        kill(supervisor, "web")
        until(lambda: len(notices) >= 2)
        assert all("No such file" in text for _, text in notices)
        (tmp_path / "gone").rename(program)
        until(lambda: supervisor.status("web").running)


def test_what_dies_at_once_is_not_started_in_a_hurry(tmp_path: Path) -> None:
    """The backoff doubles: with a patience of 100 s the second start does not come."""
    with watched(tmp_path, patience=100) as (supervisor, watch, notices):
        supervisor.start("web", python("pass"))
        watch.refresh()
        until(lambda: supervisor.status("web").ended)
        watch.refresh()
        supervisor.start("other", SLEEP)
        watch.refresh()
        assert [text for service, text in notices if service == "web"] in ([], ["started"])


def test_a_large_log_is_bounded_while_the_service_runs(tmp_path: Path) -> None:
    with watched(tmp_path) as (supervisor, watch, _):
        code = f"import sys, time\nsys.stdout.write('x' * {SIZE_MOST + 10})\nsys.stdout.flush()\ntime.sleep(1000)"
        supervisor.start("chatty", python(code))
        log = tmp_path / "services/chatty/log"
        until(lambda: log.stat().st_size > SIZE_MOST)
        watch.refresh()
        until(lambda: log.stat().st_size == 0)
        assert (tmp_path / "services/chatty/log.1").stat().st_size == SIZE_MOST


def test_a_service_that_is_not_of_its_form_does_not_end_the_watch(tmp_path: Path) -> None:
    with watched(tmp_path) as (supervisor, watch, notices):
        broken = tmp_path / "services/broken"
        broken.mkdir(parents=True)
        (broken / "wanted.json").write_text("{")
        watch.refresh()
        until(lambda: any(service == "broken" for service, _ in notices))
        supervisor.start("web", SLEEP)
        watch.refresh()
        kill(supervisor, "web")
        until(lambda: supervisor.status("web").restarts == 1)
        (broken / "wanted.json").unlink()


def test_it_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    with watched(tmp_path) as (supervisor, watch, _):
        supervisor.start("web", SLEEP)
        watch.refresh()
        kill(supervisor, "web")
        until(lambda: supervisor.status("web").restarts == 1)
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before


def test_a_watch_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    Watch(Supervisor(tmp_path), lambda *_: None).stop()
