"""Runs the system's own tools: never through a shell, with a clean environment and a time limit.

What runs stays in the worker's process group, so that whoever ends the worker ends all of it. What a program leaves
running in the background - a maintainer script's daemon - is not waited for, though it may hold its output.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device_agent.installers.child_output import output_until_end
from fleet_protocol.errors import InstallError

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OUTPUT_MOST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended, and the end of what it said."""

    status: int
    output: str
    errors: str = ""
    """What it said on standard error, where that was asked for apart."""

    @property
    def last_words(self) -> str:
        """Its last line, for people."""
        lines = [line.strip() for line in (self.output + self.errors).splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"status {self.status}"


def search_path(system_root: Path) -> str:
    """PATH of the system's own tools; in a trial, where its root is another place than /, those that stand there."""
    return ":".join(str(system_root / directory.lstrip("/")) for directory in PATH.split(":"))


class Programs:
    """Finds programs on one search path."""

    def __init__(self, path: str = PATH) -> None:
        self._path = path

    def has(self, program: str) -> bool:
        """Whether the device has this program."""
        return self._find(program) is not None

    def run(
        self,
        program: str,
        *arguments: str,
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
        user: int | None = None,
        group: int | None = None,
        directory: Path = Path("/"),
        told: bytes = b"",
        most_bytes: int = _OUTPUT_MOST,
        apart: bool = False,
    ) -> Ran:
        """Run it to its end in `directory`, reading `told`; of what it writes by then the last `most_bytes` are kept.

        `user` is another uid to run as, `group` its gid: such a program has no other group. Output and errors are
        read together, unless `apart` keeps the errors out of the output.

        Raises InstallError `unsupported` where the device has no such program, `start` where it does not end in time.
        """
        found = self._find(program)
        if found is None:
            raise InstallError("unsupported", f"this device has no {program}")
        variables = {"PATH": self._path, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HOME": "/root", **(environment or {})}
        with _read_by(told) as standard_input:
            process = subprocess.Popen(  # noqa: S603 - an argument vector, no shell
                [found, *arguments],
                env=variables,
                user=user,
                group=group,
                extra_groups=None if user is None else (),
                umask=0o022,  # whatever the worker's is: others read what the system's tools make
                cwd=directory,
                stdin=standard_input,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if apart else subprocess.STDOUT,
            )
        with process:
            try:
                said = output_until_end(process, timeout_s, most_bytes)
            finally:
                process.kill()
        if said is None:
            raise InstallError("start", f"{program} {' '.join(arguments)[:200]} did not end in {timeout_s:g} s")
        return Ran(process.returncode, *(text.decode("utf-8", "replace") for text in said))

    def _find(self, program: str) -> str | None:
        for directory in self._path.split(":"):
            place = Path(directory) / program
            if place.is_file() and os.access(place, os.X_OK):
                return str(place)
        return None


@contextmanager
def _read_by(told: bytes) -> Iterator[int]:
    """A standard input that says this: a file, for of a pipe nobody knows when it is read."""
    if not told:
        yield subprocess.DEVNULL
        return
    descriptor = os.memfd_create("told")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(told)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
