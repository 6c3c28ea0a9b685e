"""What the command shows and asks: plain lines, one line for a mistake, secrets never echoed."""

import getpass
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from securesystemslib.signer._crypto_signer import CryptoSigner

from firmware_tools import keys
from fleet_protocol.errors import PolicyError

_PASSPHRASE_MOST: Final = 1_024


class Terminal:
    """The engineer's terminal."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True, emoji=False)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

    def say(self, *lines: str, style: str | None = None) -> None:
        """Print lines as they are; nothing in them is markup."""
        for line in lines:
            self._out.print(line, markup=False, style=style)

    def show(self, document: Mapping[str, Any] | Sequence[Any]) -> None:
        """Print JSON for programs."""
        sys.stdout.write(json.dumps(document, indent=2, sort_keys=True) + "\n")

    def warn(self, line: str) -> None:
        """Print a line that must not be missed."""
        self._err.print(line, markup=False, style="bold yellow")

    def fail(self, line: str) -> None:
        """Print the one line of a mistake."""
        self._err.print(f"fairlead-firmware: {line}", markup=False, style="red")

    def confirm(self, question: str) -> bool:
        """Ask for yes. Without a terminal there is nobody to ask: PolicyError `bad-request`."""
        if not sys.stdin.isatty():
            raise PolicyError("bad-request", "there is no terminal to ask; look at it with `inspect`, then give --yes")
        return self._out.input(f"{question} [y/N] ", markup=False).strip().lower() in ("y", "yes")

    def signer(self, path: Path, passphrase: str | None) -> CryptoSigner:
        """The signer of a key file; asks for its passphrase where it needs one that was not given."""
        if passphrase is None and keys.needs_passphrase(path):
            passphrase = self._ask(f"Passphrase of {path}: ")
        return keys.load(path, passphrase)

    def new_passphrase(self, file: Path | None, *, none: bool) -> str | None:
        """The passphrase for new key files: from the file, asked for twice, or None because `none` said so."""
        if file is not None:
            return read_passphrase(file)
        if none:
            return None
        first = self._ask("New passphrase for the private keys: ")
        if first != self._ask("The same again: "):
            raise PolicyError("keys", "the two passphrases differ; nothing was written")
        return first

    def _ask(self, question: str) -> str:
        if not sys.stdin.isatty():
            detail = (
                "there is no terminal to ask for a passphrase; give --passphrase-file (or --no-passphrase for new keys)"
            )
            raise PolicyError("keys", detail)
        answer = getpass.getpass(question)
        if not answer:
            raise PolicyError("keys", "the passphrase is empty; for keys without one give --no-passphrase")
        return answer


def read_passphrase(path: Path) -> str:
    """The first line of a file. Raises PolicyError `keys` where there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            line = file.readline(_PASSPHRASE_MOST + 2).rstrip("\r\n")
    except OSError as error:
        raise PolicyError("keys", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise PolicyError("keys", f"{path}: {error}") from None
    if not 0 < len(line) <= _PASSPHRASE_MOST:
        raise PolicyError(
            "keys", f"{path}: its first line must be a passphrase of at most {_PASSPHRASE_MOST} characters"
        )
    return line
