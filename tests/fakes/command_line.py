"""Runs `fairlead` as an operator does: a process of its own, in a home of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_PROGRAM = [sys.executable, "-c", "from server.cli.main import main; main()"]
_WAIT_S = 120


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str


@dataclass
class CommandLine:
    """One operator: a home directory, a working directory and variables."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """What the process sees: nothing of the account that runs the tests but where programs are."""
        kept = {"PATH": os.environ["PATH"], "HOME": str(self.home), "COLUMNS": "100", "PYTHONPATH": str(Path.cwd())}
        return kept | self.variables

    def start(self, *words: str, **options: object) -> "subprocess.Popen[str]":
        """Begin a command; the caller waits for its end."""
        return subprocess.Popen(
            [*_PROGRAM, *words],
            cwd=self.home,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def run(self, *words: str) -> Ran:
        """Run a command to its end."""
        process = self.start(*words)
        out, err = process.communicate(timeout=_WAIT_S)
        return Ran(process.returncode, out, err)

    def fails(self, *words: str, status: int = 1) -> str:
        """Run a command that must fail as every mistake does: one line on standard error, which is returned."""
        return failure_line(self.run(*words), status)


@dataclass
class CommandHere:
    """The same within the test's process, where a second for each start would add up."""

    home: Path
    variables: dict[str, str]
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *words: str) -> Ran:
        """Run a command to its end."""
        from server.cli.main import main

        with self.monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("FAIRLEAD_", "XDG_"))]:
                patch.delenv(name)
            for name, value in {"HOME": str(self.home), "COLUMNS": "100", **self.variables}.items():
                patch.setenv(name, value)
            patch.chdir(self.home)
            patch.setattr(sys, "argv", ["fairlead", *words])
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = self.capsys.readouterr()
        return Ran(int(ended.value.code or 0), out, err)

    def fails(self, *words: str, status: int = 1) -> str:
        """As `CommandLine.fails`."""
        return failure_line(self.run(*words), status)


def failure_line(ran: Ran, status: int) -> str:
    """The one line that a mistake is told with."""
    assert ran.status == status, ran
    assert ran.err.count("\n") == 1, ran.err
    assert ran.err.startswith("fairlead: "), ran.err
    assert ran.err.rstrip().endswith(")"), ran.err
    return ran.err
