"""A wall clock that is wrong, for processes that a test starts."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_suffix(".c")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler (apt-get install gcc)")


def shift_wall_clock(patch: pytest.MonkeyPatch, library: Path, by_s: float) -> None:
    """Processes that are started from now on, and theirs, see this wall clock. `library` is where it may be built."""
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, _SOURCE], check=True)
    patch.setenv("LD_PRELOAD", str(library))
    patch.setenv("WALL_CLOCK_SHIFT_S", str(int(by_s)))
    told = subprocess.run([sys.executable, "-c", "import time; print(time.time())"], capture_output=True, check=True)
    assert abs(float(told.stdout) - (time.time() + by_s)) < 60
