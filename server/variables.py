"""Variables that look like Fairlead's and that nothing reads: a slip of the pen would change nothing, silently."""

import difflib
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "FAIRLEAD_"
OPERATORS: Final = frozenset({"SERVER", "TOKEN", "CA_FILE", "DATA_DIR"})
"""What the operator's commands read."""
_GIVEN_TO_SERVICES: Final = frozenset({"PACKAGE", "VERSION"})
"""What an agent tells the services that it runs, of which Fairlead's server may be one."""


def unread(variables: Iterable[str], settings: Iterable[str]) -> list[str]:
    """One line for each variable with the prefix that is none of the server's `settings` and none of the operator's,
    with the nearest that is, where one is near."""
    known = sorted({name.upper() for name in settings} | OPERATORS | _GIVEN_TO_SERVICES)
    ours = (name for name in variables if name.upper().startswith(PREFIX))
    return [_line(name, known) for name in sorted(ours) if name.upper().removeprefix(PREFIX) not in known]


def _line(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.upper().removeprefix(PREFIX), known, n=1)
    return f"the variable {name} is not read by anything" + (f": do you mean {PREFIX}{near[0]}?" if near else "")
