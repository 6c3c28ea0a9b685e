"""Draws docs/errors.md from fleet_protocol.errors.CODES: `python docs/draw_errors.py`, or `--check` to compare."""

import sys
from pathlib import Path

from fleet_protocol.errors import CODES, Fault
from server.api.errors import status_of_code

PLACE = Path(__file__).with_name("errors.md")
_HEAD = """# Error codes

Drawn from `fleet_protocol/errors.py` by `docs/draw_errors.py`; do not edit by hand.

A code is part of the public contract: it stands in signed reports, in `state.why`, in counters, in the CLI's last line
and in the body `{"code", "detail"}` of every HTTP error. Codes are added, never renamed. The detail is one line for
people: what was wrong, and where it helps what to do. The HTTP status is what the REST API answers with, where the code
comes up there.
"""
_FAULTS = {
    Fault.PROTOCOL: ("The sender's bytes", "Dropped, counted and reported; never retried. An attempt is not spent."),
    Fault.TRANSPORT: ("The network, or a busy peer", "Tried again with backoff; never spends an attempt."),
    Fault.INSTALL: ("The device", "The attempt is undone and spent, and the device reports it."),
    Fault.POLICY: ("The request, or the machine that runs the command", "One line at the CLI; a 4xx from the server."),
}


def draw() -> str:
    """The whole document."""
    parts = [_HEAD]
    for fault, (title, text) in _FAULTS.items():
        rows = [
            f"| `{code.name}` | {status_of_code(code.name)} | {code.meaning} |"
            for code in CODES.values()
            if code.fault is fault
        ]
        parts.append(
            f"## {title}\n\n{text}\n\n| code | HTTP | meaning |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write the document, or with `--check` compare it; 1 where it differs."""
    if arguments == ["--check"]:
        same = PLACE.is_file() and PLACE.read_text(encoding="utf-8") == draw()
        if not same:
            sys.stderr.write("docs/errors.md is not what the code says: python docs/draw_errors.py\n")
        return 0 if same else 1
    PLACE.write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
