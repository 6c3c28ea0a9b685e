"""Runs the system's own tools: never through a shell, with a clean environment and a time limit.

What runs stays in the worker's process group, so that whoever ends the worker ends all of it.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
        """Run it to its end in `directory`, reading `told`; of what it writes the last `most_bytes` are kept.

        `user` is another uid to run as, `group` its gid: such a program has no other group. Output and errors are
        read together, unless `apart` keeps the errors out of the output.

        Raises InstallError `unsupported` where the device has no such program, `start` where it does not end in time.
        """
        found = self._find(program)
        if found is None:
            raise InstallError("unsupported", f"this device has no {program}")
        variables = {"PATH": self._path, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HOME": "/root", **(environment or {})}
        try:
            done = subprocess.run(  # noqa: S603 - an argument vector, no shell
                [found, *arguments],
                env=variables,
                user=user,
                group=group,
                extra_groups=None if user is None else (),
                umask=0o022,  # whatever the worker's is: others read what the system's tools make
                cwd=directory,
                input=told or None,
                stdin=None if told else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if apart else subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InstallError(
                "start", f"{program} {' '.join(arguments)[:200]} did not end in {timeout_s:g} s"
            ) from None
        errors = (done.stderr or b"")[-_OUTPUT_MOST:].decode("utf-8", "replace")
        return Ran(done.returncode, done.stdout[-most_bytes:].decode("utf-8", "replace"), errors)

    def _find(self, program: str) -> str | None:
        for directory in self._path.split(":"):
            place = Path(directory) / program
            if place.is_file() and os.access(place, os.X_OK):
                return str(place)
        return None
