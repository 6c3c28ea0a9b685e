"""The list of crash points is exactly what the code has."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

from device_agent.installers.crash import CRASH_POINTS, ENVIRONMENT

PACKAGE = Path(__file__).parents[3] / "device_agent"


def _named() -> set[str]:
    names = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "crash_point":
                names.add(ast.literal_eval(node.args[0]))
    return names


def test_every_point_is_listed_and_every_listed_point_is_there() -> None:
    assert _named() == set(CRASH_POINTS)
    assert len(CRASH_POINTS) == len(set(CRASH_POINTS))


def test_a_point_kills_only_when_it_is_asked_for_by_name() -> None:
    code = "from device_agent.installers.crash import crash_point; crash_point('stage.after_sync'); print('alive')"
    for asked, status in (("stage.after_sync", -signal.SIGKILL), ("stage.before_sync", 0), ("", 0)):
        environment = os.environ | {ENVIRONMENT: asked, "PYTHONPATH": str(PACKAGE.parent)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (status, b"" if status else b"alive\n")
