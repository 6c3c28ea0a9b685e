"""One command line from its words to an exit status: one line for every mistake."""

import errno
from collections.abc import Sequence
from typing import Any, Final

import typer

from firmware_tools.terminal import Terminal
from fleet_protocol.errors import FleetError

PROGRAM: Final = "fairlead-firmware"
_WRONG_WORDS: Final = 2
_CLI_ERRORS: Final = tuple(
    kind for kind in typer.BadParameter.__mro__ if issubclass(kind, Exception) and kind.__name__ == "ClickException"
)


def run(command: Any, arguments: Sequence[str]) -> int:
    """Exit status 0 when done, 1 when it could not be done, 2 for a command line that is wrong, or empty."""
    terminal = Terminal()
    words = list(arguments) or ["--help"]
    try:
        result: Any = command(words, prog_name=PROGRAM, standalone_mode=False)
    except FleetError as error:
        terminal.fail(error.detail)
    except _CLI_ERRORS as error:
        terminal.fail(f"{_message(error)} (see --help)")
        return _WRONG_WORDS
    except (typer.Abort, KeyboardInterrupt):
        terminal.fail("stopped; a draft that was complete before is still there")
    except OSError as error:
        terminal.fail(_os_error(error))
    else:
        status = result if isinstance(result, int) else 0
        return status if arguments else _WRONG_WORDS
    return 1


def _message(error: Any) -> str:
    message: str = error.format_message()
    return " ".join(message.split()).removesuffix(".")


def _os_error(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    hint = "; free some space" if error.errno == errno.ENOSPC else ""
    return f"{place}{error.strerror or error}{hint}"
