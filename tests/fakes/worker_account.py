"""An account without rights that every machine has, and a Python that it can run."""

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from device_agent.identity import WorkerUser

NAME = "nobody"
ROOT = Path(__file__).parents[2]
_MOUNTED = 'while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 125; shift 2; done; shift; exec "$@"'


@dataclass(frozen=True)
class Python:
    """How to start a Python with this project and its libraries."""

    command: tuple[str, ...] = (sys.executable,)
    environment: Mapping[str, str] = field(default_factory=dict)


def account() -> WorkerUser:
    """The account's entry."""
    entry = pwd.getpwnam(NAME)
    return WorkerUser(NAME, entry.pw_uid, entry.pw_gid)


def as_account(*command: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a program as the account, to its end; only root can."""
    user = account()
    who: dict[str, Any] = {"user": user.uid, "group": user.gid, "extra_groups": []}
    return subprocess.run(command, capture_output=True, check=False, cwd="/", **who)


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A temporary folder that every account may pass through; those of pytest are root's alone."""
    path = Path(tempfile.mkdtemp(prefix="fairlead-test-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def reachable_python() -> Iterator[Python]:
    """A Python that the account can go on with once a process has become it; skips where there can be none.

    What lies where the account can not pass (an interpreter below /root) is shown to it elsewhere, in a mount
    namespace that only the started processes are in.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    hidden = [path for path in _parts() if not _can_reach(path)]
    if not hidden:
        yield Python()
        return
    with reachable_folder() as shown:
        places = {path: shown / str(number) for number, path in enumerate(hidden)}
        for place in places.values():
            place.mkdir()
        python = _moved(places)
        if subprocess.run([*python.command, "-c", "pass"], env=environment(python), check=False).returncode:
            pytest.skip(f"{NAME} can not reach {sys.base_prefix}, and this machine does not let a test mount it")
        yield python


def environment(python: Python) -> dict[str, str]:
    """The environment of a process that is this Python."""
    return {**os.environ, **python.environment}


def _parts() -> Sequence[Path]:
    return [Path(sys.base_prefix), Path(sysconfig.get_path("purelib")), ROOT]


@cache
def _can_reach(path: Path) -> bool:
    return as_account("ls", str(path)).returncode == 0


def _moved(places: Mapping[Path, Path]) -> Python:
    base, libraries, project = (places.get(path, path) for path in _parts())
    mounts = [str(path) for pair in places.items() for path in pair]
    program = str(base / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")
    return Python(
        ("unshare", "--mount", "sh", "-c", _MOUNTED, "sh", *mounts, "--", program),
        {"PYTHONPATH": f"{project}{os.pathsep}{libraries}", "LD_LIBRARY_PATH": str(base / "lib")},
    )
