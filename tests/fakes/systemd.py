"""A system root with a systemd of its own, for tests that have neither root nor systemd."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fakes import journal_program, systemd_programs

_MAIN = """#!{python} -IS
import sys
sys.path.insert(0, {directory!r})
import {module}
{module}.run()
"""
"""Imported and not run as it is: its bytecode is kept, and each test calls it a hundred times."""


class FakeSystemd:
    """`root` is the system root; what the agent asks of systemctl happens below it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        programs = root / "usr/bin"
        programs.mkdir(parents=True)
        for name, module in (("systemctl", systemd_programs), ("journalctl", journal_program)):
            path = Path(module.__file__)
            text = _MAIN.format(python=sys.executable, directory=str(path.parent), module=path.stem)
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.units = root / "etc/systemd/system"
        (root / "run/systemd/system").mkdir(parents=True)

    def ctl(self, *arguments: str) -> str:
        """Run `systemctl` as an operator would."""
        command = [str(self.root / "usr/bin/systemctl"), *arguments]
        environment = {"HOME": os.environ.get("HOME", "/root"), "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout

    def show(self, unit: str, name: str) -> str:
        """One property."""
        return self.ctl("show", f"--property={name}", "--", unit).partition("=")[2].strip()

    def write(self, path: str, text: str) -> Path:
        """A file of the system, and a daemon-reload."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        self.ctl("daemon-reload")
        return place

    def mask(self, unit: str) -> None:
        """As `systemctl mask` does."""
        self.units.mkdir(parents=True, exist_ok=True)
        (self.units / unit).unlink(missing_ok=True)
        (self.units / unit).symlink_to("/dev/null")
        self.ctl("daemon-reload")

    def pids(self) -> list[int]:
        """Main processes of all units."""
        states = (json.loads(path.read_text()) for path in (self.root / "run/fake").glob("*/*.json"))
        return [state["pid"] for state in states if state["pid"]]

    def cut_power(self) -> None:
        """Nothing runs any more, and what was in memory is gone."""
        watchers = [int(path.name.split(".")[-2]) for path in (self.root / "run/fake").glob("*/*.watcher")]
        for pid in (*watchers, *self.pids()):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        shutil.rmtree(self.root / "run")
        (self.root / "run/systemd/system").mkdir(parents=True)

    def boot(self) -> None:
        """Start what is enabled."""
        self.ctl("boot")
        self.ctl("--user", "boot")

    def files(self) -> dict[str, str]:
        """All files and links of the system but the programs and what runs, with their content or text."""
        found = {}
        for path in sorted((self.root).rglob("*")):
            name = str(path.relative_to(self.root))
            if not name.startswith(("usr/bin", "run/", "var/log")) and (path.is_symlink() or path.is_file()):
                found[name] = str(path.readlink()) if path.is_symlink() else path.read_text()
        return found


@contextmanager
def fake_systemd(root: Path) -> Iterator[FakeSystemd]:
    """Whatever its units started is ended with the block."""
    systemd = FakeSystemd(root)
    try:
        yield systemd
    finally:
        systemd.cut_power()
