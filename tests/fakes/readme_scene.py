"""The README's section about the first real device, carried out word for word by a shell.

What differs from the page is only what another run on the same machine could disturb: ports, and that the broker
listens on loopback alone. Each is one replacement of words that must stand on the page.
"""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fakes.waiting import until

README = Path(__file__).parents[2] / "README.md"
TITLE = "## The first real device"


def blocks() -> list[tuple[str, str]]:
    """Each block of the section with the place where it is typed, in order."""
    section = README.read_text(encoding="utf-8").split(TITLE, 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```sh (\w+)\n(.*?)```", section, re.DOTALL)


def commands(script: str) -> list[str]:
    """A block's commands, continued lines joined."""
    return [line for line in script.replace("\\\n", " ").splitlines() if line.strip()]


class Scene:
    """One folder, and everything that was started in it."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.folder = folder
        devices, services, server, service = ports
        self._words = {
            "--host localhost": "--host localhost --address 127.0.0.1 "
            f"--device-port {devices} --service-port {services}",
            "localhost:8080": f"localhost:{server}",
            "127.0.0.1 9000": f"127.0.0.1 {service}",
            "127.0.0.1:9000": f"127.0.0.1:{service}",
        }
        programs = Path(sys.executable).parent
        self._environment = {
            "PATH": os.pathsep.join([str(programs), os.environ["PATH"], "/usr/sbin"]),
            "HOME": str(folder),
            "FAIRLEAD_PORT": str(server),
            "FAIRLEAD_SERVER": f"http://127.0.0.1:{server}",
            "NO_COLOR": "1",
        }
        self._used: set[str] = set()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, script: str, *, answer: str = "") -> str:
        """Type a block, and the answer to what it asks, at a terminal, and wait for its end; what it said."""
        near, far = pty.openpty()
        os.write(near, answer.encode())
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._here(script)],
            cwd=self.folder,
            env=self._environment,
            stdin=far,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        os.close(near)
        os.close(far)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, name: str, command: str) -> None:
        """Type a command that stays."""
        with self.log(name).open("wb") as log:
            argv = ["bash", "-c", f"exec {self._here(command)}"]
            self._running[name] = subprocess.Popen(
                argv, cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def hears(self, name: str, words: str) -> None:
        """Wait until what stays says this, or AssertionError with what it said where it has ended."""

        def said() -> bool:
            text = self.log(name).read_text(errors="replace")
            assert self._running[name].poll() is None, f"{name} ended: {text}"
            return words in text

        until(said)

    def log(self, name: str) -> Path:
        """What it says."""
        return self.folder / f"{name}.log"

    def end(self) -> dict[str, int]:
        """End in order, the newest first; the exit statuses by name."""
        statuses = {}
        while self._running:
            name, process = self._running.popitem()
            process.terminate()
            statuses[name] = process.wait(60)
        return statuses

    def unused(self) -> set[str]:
        """Words of the replacements that stood in no block: the page has changed."""
        return set(self._words) - self._used

    def _here(self, script: str) -> str:
        for word, other in self._words.items():
            if word in script:
                self._used.add(word)
                script = script.replace(word, other)
        return script
