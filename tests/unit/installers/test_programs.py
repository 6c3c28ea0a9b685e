"""How the system's own tools are run."""

import os
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from device_agent.installers.programs import Programs, Ran
from fleet_protocol.errors import InstallError


def _shell(text: str, **options: Any) -> Ran:
    return Programs().run("sh", "-c", text, **{"timeout_s": 60, **options})


def test_what_a_tool_makes_others_can_read_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert Programs().run("touch", str(tmp_path / "made"), timeout_s=60).status == 0
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o644


def test_what_a_program_leaves_running_is_not_waited_for() -> None:
    """A maintainer script may start a daemon that never lets go of dpkg's output."""
    ran = _shell("sleep 1000 & echo $!; echo said to the end")
    os.kill(int(ran.output.split()[0]), signal.SIGKILL)
    assert (ran.status, ran.last_words) == (0, "said to the end")


def test_what_a_program_leaves_writing_is_not_read_for_ever() -> None:
    ran = _shell("while :; do echo x; done & echo $! >&2; exit 3", apart=True)
    with suppress(ProcessLookupError):  # it may have noticed by itself that nobody reads
        os.kill(int(ran.errors), signal.SIGKILL)
    assert ran.status == 3


def test_a_program_that_does_not_end_is_ended() -> None:
    with pytest.raises(InstallError) as caught:
        Programs().run("sleep", "1000.25", timeout_s=0.1)
    assert caught.value.code == "start"
    assert ["1000.25"] not in [command[1:] for command in _children()]


def _children() -> Iterator[list[str]]:
    """The command lines of this process's children; one that only waits to be reaped has none."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            yield child.cmdline()


def test_a_program_is_heard_to_the_end() -> None:
    numbers = "".join(f"{number}\n" for number in range(1, 100_001))
    ran = _shell("seq 100000; echo bad >&2; exit 3", most_bytes=len(numbers), apart=True)
    assert ran == Ran(3, numbers, "bad\n")
    assert _shell("echo bad >&2; exit 3") == Ran(3, "bad\n")
    assert _shell("kill -9 $$").status == -signal.SIGKILL


def test_what_it_is_told_may_be_more_than_a_pipe_holds() -> None:
    told = b"hold\n" * 100_000
    assert _shell("sleep 0.01; cat", told=told, most_bytes=len(told)).output.encode() == told
    assert _shell("exit 3", told=told).status == 3
    assert _shell("cat") == Ran(0, "")


def test_of_what_it_says_no_more_than_the_end_is_held() -> None:
    tracemalloc.start()
    try:
        ran = _shell("head -c 50000000 /dev/zero; echo end", most_bytes=1_000)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert len(ran.output) == 1_000
    assert ran.output.endswith("end\n")
