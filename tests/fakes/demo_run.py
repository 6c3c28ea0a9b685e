"""`fairlead demo` as a process: its story line by line, its places, its processes by name."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil

PATIENCE_S = 240.0
"""Only bounds a hang; nothing is asserted about time."""


class DemoRun:
    """Runs the demo in its own session; at the end nothing of it is left, whatever the test did."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        argv = [str(Path(sys.executable).with_name("fairlead")), "demo", "--dir", str(folder), *words]
        environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "DemoRun":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        for process in self.processes():
            process.kill()

    @property
    def story(self) -> str:
        """All that was told so far."""
        with self._news:
            return "\n".join(self._lines)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the story matches; the story is the message where it ends without."""
        with self._news:
            while True:
                found = re.search(pattern, "\n".join(self._lines), re.MULTILINE)
                if found is not None:
                    return found
                assert not self._ended, f"{pattern!r} was never told:\n" + "\n".join(self._lines)
                assert self._news.wait(PATIENCE_S), f"{pattern!r} was not told in time:\n" + "\n".join(self._lines)

    def place(self, name: str) -> str:
        """What stands behind `name` on its line."""
        return self.wait_for(rf"^{name} (\S+)$").group(1)

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit status."""
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """The exit status, once the demo has ended by itself."""
        status = self._process.wait(PATIENCE_S)
        self._reader.join(10)
        return status

    def processes(self) -> list[psutil.Process]:
        """Every living process that names the demo's folder, the demo itself aside."""
        return [p for p in psutil.process_iter() if p.pid != self._process.pid and self._names_folder(p)]

    def kill(self, *words: str) -> None:
        """kill -9 the process whose command line holds all the words; of several the oldest, not its workers."""
        fitting = [p for p in self.processes() if all(any(word in part for part in _words(p)) for word in words)]
        min(fitting, key=psutil.Process.create_time).kill()

    def _names_folder(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            named = any(str(self.folder) in part for part in process.cmdline())
            return named or str(self.folder) in process.environ().get("FAIRLEAD_DATA_DIR", "")
        except psutil.Error:
            return False

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def _words(process: psutil.Process) -> list[str]:
    """The command line; empty for a process that has just ended, as workers do all the time."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
