"""The server's words for whoever types commands: it names its own addresses and members, which are no commands."""

import re
from collections.abc import Mapping
from typing import Final

_COMMANDS: Final[Mapping[str, str]] = {
    r"GET /api/updates\b": "`fairlead rollouts`",
    r"GET /api/nodes\b": "`fairlead devices`",
    r"GET /api/groups\b": "`fairlead groups`",
    r"PUT /api/artifacts/\w+": "`fairlead catalogue upload DIR`",
    r"POST /api/catalogue\b": "`fairlead catalogue upload DIR`",
    r"\bpackage_url\b": "--url",
    r"\btarget_nodes\b": "--nodes",
    r"\bexpires_s\b": "--expires",
    r"\bnot_before\b": "--not-before",
    r"\b(soak|probation|silence)_s\b": r"--\1",
    r"\b(failure|silence)_(limit|rate)\b": r"--\1-\2",
}


def in_commands(detail: str) -> str:
    """An answer of the server in which addresses and members are the commands and options that stand for them."""
    for pattern, command in _COMMANDS.items():
        detail = re.sub(pattern, command, detail)
    return detail
