"""What every command shares: which server, which token, how answers and errors are printed."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console, RenderableType

from fleet_protocol.errors import FleetError
from server.client import Client, ClientError

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
_TOKEN_FILES: Final = ("fairlead-data/token",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One invocation of the command line."""

    server: str
    token: str | None
    as_json: bool
    console: Console

    def client(self) -> Client:
        """The server that this invocation speaks to."""
        return Client(self.server, self.token)

    def show(self, value: Any, render: Callable[[], RenderableType]) -> None:
        """Print an answer: as JSON for machines, else as `render` draws it for people."""
        if self.as_json:
            typer.echo(json.dumps(value, indent=2, sort_keys=True))
        else:
            self.console.print(render())


def open_session(server: str | None, token: str | None, *, as_json: bool) -> Session:
    """Options first, then FAIRLEAD_SERVER and FAIRLEAD_TOKEN, then the token file of a server on this machine."""
    return Session(
        server=server or os.environ.get("FAIRLEAD_SERVER") or DEFAULT_SERVER,
        token=token or os.environ.get("FAIRLEAD_TOKEN") or _token_from_file(),
        as_json=as_json,
        console=Console(),
    )


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Whatever goes wrong by an operator's, a server's or a file's fault is one line and exit status 1."""
    try:
        yield
    except (ClientError, FleetError) as error:
        fail(error.detail, error.code)
    except OSError as error:
        fail(f"{error.filename or 'a file'}: {error.strerror}", "setup")


def fail(detail: str, code: str) -> None:
    """Say what was wrong on one line of standard error and exit with status 1."""
    line = " ".join(f"fairlead: {detail} ({code})".split())
    print(line, file=sys.stderr)  # noqa: T201 - the error line of a command
    raise typer.Exit(1)


def _token_from_file() -> str | None:
    data_dir = os.environ.get("FAIRLEAD_DATA_DIR")
    candidates = [Path(data_dir) / "token"] if data_dir else []
    candidates += [Path(name) for name in _TOKEN_FILES]
    candidates.append(Path("~/.config/fairlead/token").expanduser())
    for path in candidates:
        if path.is_file() and os.access(path, os.R_OK):
            return path.read_text(encoding="ascii").strip()
    return None
