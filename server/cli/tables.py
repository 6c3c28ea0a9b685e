"""How answers look to people."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_STATE_STYLES: Final = {"complete": "green", "active": "cyan", "held": "yellow", "recalled": "red"}


def devices(nodes: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One line a device."""
    table = _table("device", "group", "class", "online", "stage", "installed", "why")
    for node in nodes:
        online = Text("yes", "green") if node["available"] else Text("no", "red")
        installed = ", ".join(f"{i['package']} {i['version']}" for i in node["installed"])
        table.add_row(
            node["id"], node["group"], node["class"], online, node["stage"] or "-", installed or "-", node["why"] or "-"
        )
    return table if nodes else Text("no devices yet: fairlead-agent enroll adds one")


def rollouts(jobs: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One line a rollout."""
    table = _table("job", "group", "release", "state", "wave", "committed", "failed", "silent", "reason")
    for job in jobs:
        counts = job["counts"]
        table.add_row(
            job["job_id"],
            job["group"],
            f"{job['package']} {job['version']}",
            state(job["state"]),
            f"{job['wave'] + 1} of {len(job['waves'])}",
            f"{counts['committed']} of {counts['devices']}",
            str(counts["failed"]),
            str(counts["silent"]),
            job["reason"] or "-",
        )
    return table if jobs else Text("no rollouts yet: fairlead publish starts one")


def rollout(job: Mapping[str, Any]) -> RenderableType:
    """One rollout with its bar, counts and failures."""
    counts = job["counts"]
    head = Text.assemble(
        (job["job_id"], "bold"), f"  {job['package']} {job['version']} to {job['group']}  ", state(job["state"])
    )
    lines: list[RenderableType] = [head]
    wave = f"wave {max(job['wave'] + 1, 0)} of {len(job['waves'])}"
    lines.append(Text.assemble(f"  {wave}  ", bar(counts["committed"], counts["failed"], counts["devices"])))
    names = ("devices", "selected", "committed", "failed", "in_progress", "silent", "waiting")
    lines.append(Text("  " + "  ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in names)))
    if job["reason"]:
        lines.append(Text(f"  because {job['reason']}", "yellow"))
    for failure in job["failures"]:
        detail = f" ({failure['detail']})" if failure["detail"] else ""
        lines.append(Text(f"  {failure['device']}: {failure['code']}{detail}", "red"))
    return Group(*lines)


def bar(done: int, failed: int, total: int, *, width: int = 40) -> Text:
    """A progress bar of committed and failed devices; empty where there are none."""
    full = round(width * done / total) if total else 0
    broken = min(width - full, round(width * failed / total)) if total else 0
    rest = width - full - broken
    return Text.assemble(("█" * full, "green"), ("█" * broken, "red"), ("░" * rest, "dim"), f" {done}/{total}")


def plain(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], nothing: str) -> RenderableType:
    """Any list of flat objects; `nothing` is said where it is empty."""
    table = _table(*columns)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table if rows else Text(nothing)


def state(name: str) -> Text:
    """A rollout's state in its colour."""
    return Text(name, _STATE_STYLES.get(name, ""))


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "-"
    return str(value)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
