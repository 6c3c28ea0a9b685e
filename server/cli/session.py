"""What every command shares: which server, which token, how answers and errors are printed."""

import errno
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console, RenderableType

from fleet_protocol.errors import FleetError, PolicyError
from server.cli.printable import line
from server.cli.wording import in_commands
from server.client import Client, ClientError, is_local
from server.variables import OPERATORS, PREFIX, unread

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
_LOCAL_DATA: Final = "fairlead-data"
_PIPE_WIDTH: Final = 10_000
"""Columns where the output is no terminal: one row stays one line, for grep and cut."""
_MEMBERS: Final = {"server", "token", "token_file", "ca_file"}


@dataclass(frozen=True, slots=True)
class Account:
    """A server, and how one speaks to it."""

    server: str
    token: str | None
    ca_file: Path | None


@dataclass(frozen=True, slots=True)
class Session:
    """One invocation of the command line, connected to a server."""

    client: Client
    as_json: bool
    console: Console

    def show(self, value: Any, render: Callable[[], RenderableType]) -> None:
        """Print an answer: as JSON for machines, else as `render` draws it for people."""
        if self.as_json:
            typer.echo(json.dumps(value, indent=2, sort_keys=True))
        else:
            self.console.print(render())


@contextmanager
def open_session(server: str | None, token: str | None, *, as_json: bool) -> Iterator[Session]:
    """A session with the server that the options, the environment or the configuration file name."""
    with one_line_errors():
        _warn_of_slips()
        account = find_account(server, token)
        with Client(account.server, account.token, ca_file=account.ca_file) as client:
            yield Session(client, as_json, console())


def _warn_of_slips() -> None:
    """Say which variables are not read by anything."""
    if all(name.removeprefix(PREFIX) in OPERATORS for name in os.environ if name.startswith(PREFIX)):
        return
    from server.settings import Settings  # noqa: PLC0415 - the server's, which take longer to load than most commands run

    for text in unread(os.environ, Settings.model_fields):
        sys.stderr.write(f"fairlead: {line(text)}\n")


def find_account(server: str | None, token: str | None) -> Account:
    """Options first, then FAIRLEAD_SERVER and FAIRLEAD_TOKEN, then the configuration file, then this machine.

    The token of the configuration file goes to the server that is named beside it, and the token file of a
    server on this machine goes to loopback: neither to another address that was typed.
    """
    file = _configuration()
    configured = file.get("server", DEFAULT_SERVER)
    chosen = server or os.environ.get("FAIRLEAD_SERVER") or configured
    token = token or os.environ.get("FAIRLEAD_TOKEN")
    if token is None and chosen == configured:
        token = file.get("token") or (_read(Path(file["token_file"])) if "token_file" in file else None)
    elif token is not None and token.startswith("@"):
        token = _read(Path(token[1:]))
    if token is None and is_local(chosen):
        token = _local_token()
    ca_file = os.environ.get("FAIRLEAD_CA_FILE") or file.get("ca_file")
    return Account(chosen, token, None if ca_file is None else Path(ca_file).expanduser())


def console() -> Console:
    """Where people read: without markup, because what devices say is data; unfolded where nobody watches."""
    made = Console(markup=False, emoji=False, highlight=False)
    return made if made.is_terminal else Console(markup=False, emoji=False, highlight=False, width=_PIPE_WIDTH)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Whatever goes wrong by an operator's, a server's or a file's fault is one line and exit status 1."""
    try:
        yield
    except ClientError as error:
        raise failure(in_commands(error.detail), error.code) from None
    except FleetError as error:
        raise failure(error.detail, error.code) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        hint = "; free some space" if error.errno == errno.ENOSPC else ""
        raise failure(f"{place}{error.strerror or error}{hint}", "setup") from None


def failure(detail: str, code: str, *, status: int = 1) -> typer.Exit:
    """Say what was wrong on one line of standard error; the exit to raise."""
    sys.stderr.write(f"fairlead: {line(detail)} ({code})\n")
    return typer.Exit(status)


def configuration_file() -> Path:
    """Where an operator's account is kept."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "fairlead" / "config.toml"


def _configuration() -> dict[str, str]:
    path = configuration_file()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise PolicyError("setup", f"{path} is not TOML: {error}") from None
    if not set(content) <= _MEMBERS or not all(isinstance(value, str) for value in content.values()):
        raise PolicyError("setup", f"{path} may say {', '.join(sorted(_MEMBERS))}, each a string")
    return content


def _local_token() -> str | None:
    """The token file of a server on this machine, where this account may read it."""
    for folder in (os.environ.get("FAIRLEAD_DATA_DIR"), _LOCAL_DATA):
        path = Path(folder or _LOCAL_DATA) / "token"
        if path.is_file() and os.access(path, os.R_OK):
            return _read(path)
    return None


def _read(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        raise PolicyError("setup", f"{path} is not a token file") from None
