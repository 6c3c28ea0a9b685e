"""Ctrl-C, however early: no program of ours answers it with a traceback."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {"fairlead": "server.cli.main", "fairlead-firmware": "firmware_tools.cli", "fairlead-agent": "device_agent.cli"}
ENTRIES = {
    "fairlead": "server.cli.entry",
    "fairlead-firmware": "firmware_tools.entry",
    "fairlead-agent": "device_agent.entry",
    "broker_config": "broker_config.__main__",
}
_STOP = """
import importlib, os, signal, sys
signal.signal(signal.SIGINT, {before})
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == {heavy!r}:
            print("loading", flush=True)
            os.read(0, 1)
sys.meta_path.insert(0, Interrupted())
sys.exit(importlib.import_module({entry!r}).main())
"""


@contextmanager
def started(code: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that says when it begins to load, and waits there."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "loading\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("name", ENTRIES)
def test_while_modules_are_loaded_it_ends_the_program_and_nothing_is_said(name: str) -> None:
    heavy = HEAVY.get(name, "broker_config.tool")
    with started(_STOP.format(heavy=heavy, entry=ENTRIES[name], before="signal.default_int_handler")) as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (-signal.SIGINT, "")


@pytest.mark.parametrize("name", ENTRIES)
def test_a_program_that_ignores_it_goes_on_ignoring_it(name: str) -> None:
    """As a job in the background of a shell does. What it says then is about its own command line."""
    heavy = HEAVY.get(name, "broker_config.tool")
    with started(_STOP.format(heavy=heavy, entry=ENTRIES[name], before="signal.SIG_IGN")) as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate("x")
    assert process.returncode in (0, 1, 2)
    assert "Traceback" not in err


def test_the_resident_does_not_complain_either(tmp_path: Path) -> None:
    code = _STOP.format(
        heavy="device_agent.settings", entry="device_agent.__main__", before="signal.default_int_handler"
    )
    code = code.replace("sys.exit(importlib.import_module('device_agent.__main__').main())", _AS_MAIN)
    with started(code.replace("CONFIG", str(tmp_path / "none.toml"))) as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert (process.returncode, err) == (-signal.SIGINT, "")


_AS_MAIN = "sys.argv[1:] = ['CONFIG']; import runpy; runpy.run_module('device_agent', run_name='__main__')"
