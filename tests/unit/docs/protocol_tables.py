"""The generated parts of `docs/protocol.md`: `python -m tests.unit.docs.protocol_tables` writes them anew."""

import re
from pathlib import Path

from fleet_protocol.errors import CODES, Fault
from fleet_protocol.topics import TOPIC_TYPES, Side

DOCUMENT = Path(__file__).parents[3] / "docs" / "protocol.md"
CONTENT = {
    "root": "TUF root N",
    "timestamp": "TUF timestamp",
    "snapshot": "TUF snapshot N",
    "targets": "TUF targets N: the catalogue",
    "delegated": "TUF targets of a delegated role",
    "manifest": "envelope: [manifest](#manifest)",
    "assignment": "envelope: [assignment](#assignment)",
    "command": "envelope: [command](#command-and-reply)",
    "availability": "bare `online` or `offline` (the last will)",
    "state": "flat JSON: [state](#state)",
    "heartbeat": "flat JSON: [heartbeat](#heartbeat)",
    "telemetry": "flat JSON: [telemetry](#telemetry)",
    "health": "JSON: [health](#health)",
    "report": "envelope: [report](#report)",
    "reply": "JSON: [reply](#command-and-reply)",
}


def topics_table() -> str:
    """Every topic with the rules of its messages."""
    rows = [
        "| topic below the prefix | from | QoS | retained | at most | content |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in TOPIC_TYPES:
        place = re.sub(r"\{(\w+)\}", r"<\1>", kind.pattern)
        sender = "server" if kind.publisher is Side.SERVER else "device"
        retained = "yes" if kind.retain else "never"
        rows.append(
            f"| `{place}` | {sender} | {kind.qos} | {retained} | {_size(kind.max_size)} | {CONTENT[kind.name]} |"
        )
    return "\n".join(rows)


def codes_table() -> str:
    """Every code that can travel."""
    rows = ["| code | fault | meaning |", "| --- | --- | --- |"]
    rows += [f"| `{code.name}` | {code.fault} | {code.meaning} |" for code in CODES.values() if code.fault in Fault]
    return "\n".join(rows)


def _size(size: int) -> str:
    for unit, factor in (("MiB", 1024 * 1024), ("KiB", 1024)):
        if size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


TABLES = {"topics": topics_table, "codes": codes_table}


def with_tables(text: str) -> str:
    """The document with its generated parts as they ought to be."""
    for name, table in TABLES.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        head, _, rest = text.partition(begin)
        _, found, tail = rest.partition(end)
        if not found:
            raise ValueError(f"the document has no place for {name}")
        text = f"{head}{begin}{table()}\n{end}{tail}"
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text("utf-8")), "utf-8")
