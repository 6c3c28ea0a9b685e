"""How answers look to people."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from server.answers import AttemptRow, AuditRow, FailureRow, Health, Job, Node, NodeDetail
from server.cli import printable

_STATE_STYLES: Final = {"complete": "green", "active": "cyan", "held": "yellow", "recalled": "red"}
_COUNTS: Final = ("devices", "selected", "committed", "failed", "withdrawn", "in_progress", "silent", "waiting")
_BAR_WIDTH: Final = 40
SERVICE: Final = ("name", "running", "pid", "restarts", "version")
NOBODY: Final = "nobody takes part: the group has no device that the waves reach and the release fits"


def devices(nodes: Sequence[Node]) -> RenderableType:
    """One line a device."""
    table = _table("device", "group", "class", "online", "seen", "stage", "installed", "why")
    for node in nodes:
        online = Text("yes", "green") if node["available"] else Text("no", "red")
        installed = ", ".join(f"{i['package']} {i['version']}" for i in node["installed"])
        table.add_row(
            *_cells(node["id"], node["group"], node["class"]),
            online,
            *_cells(_seen(node), node["stage"], installed, node["why"]),
        )
    return table if nodes else Text("no devices yet: fairlead-agent enroll adds one")


def device(node: NodeDetail, services: Sequence[Mapping[str, Any]] | str) -> RenderableType:
    """One device: how it is, what it runs and what it tried; `services` is its answer, or why there is none."""
    attacks = ", ".join(f"{code} {number}" for code, number in sorted(node["attacks"].items()))
    health = node["health"] or {}
    facts = {
        "group": node["group"],
        "class": node["class"],
        "online": node["available"],
        "seen": _seen(node),
        "stage": node["stage"],
        "why": node["why"],
        "manifest": node["sequence"],
        "health": health.get("verdict"),
        "refused": attacks,
    }
    lines: list[RenderableType] = [Text(node["id"], "bold")]
    lines += [Text(f"  {name:<9} {_cell(value)}") for name, value in facts.items()]
    installed = ("package", "version", "counter", "deployment")
    lines += [Text(), plain(node["installed"], installed, "nothing is installed")]
    running = Text(services) if isinstance(services, str) else plain(services, SERVICE, "the device runs no services")
    lines += [Text(), running, Text(), _attempts(node["attempts"])]
    return Group(*lines)


def _attempts(rows: Sequence[AttemptRow]) -> RenderableType:
    table = _table("at", "deployment", "version", "number", "stage", "outcome", "code", "detail")
    for row in rows:
        told = (row["version"], row["number"], row["stage"], row["outcome"], row["code"], row["detail"])
        table.add_row(*_cells(_local(row["at"]), row["deployment"], *told))
    return table if rows else Text("no attempts yet")


def _seen(node: Node) -> str:
    return "never" if node["seen"] is None else f"{age(time.time() - node['seen'])} ago"


def enrolled(node: Node, group: str) -> RenderableType:
    """The device that was to be enrolled in the group; one that was enrolled before stays where it was."""
    if node["group"] == group:
        return devices([node])
    moves = f"`fairlead move {node['id']} {group}` moves it"
    told = f"{node['id']} was enrolled already and stays in group {node['group']}: {moves}"
    return Group(devices([node]), Text(printable.line(told), "yellow"))


def rollouts(jobs: Sequence[Job]) -> RenderableType:
    """One line a rollout."""
    table = _table("job", "group", "release", "state", "wave", "committed", "failed", "silent", "reason")
    for job in jobs:
        counts = job["counts"]
        table.add_row(
            *_cells(job["job_id"], job["group"], f"{job['package']} {job['version']}"),
            state(job["state"]),
            *_cells(f"{job['wave'] + 1} of {len(job['waves'])}", f"{counts['committed']} of {counts['devices']}"),
            *_cells(counts["failed"], counts["silent"], job["reason"]),
        )
    return table if jobs else Text("no rollouts yet: fairlead publish starts one")


def rollout(job: Job, *, fancy: bool = False) -> RenderableType:
    """One rollout with its waves, bars, counts and failures; `fancy` draws with more than ASCII."""
    counts = job["counts"]
    what = printable.line(f"{job['package']} {job['version']} to {job['group']}")
    head = Text.assemble((printable.line(job["job_id"]), "bold"), f"  {what}  ", state(job["state"]))
    lines: list[RenderableType] = [head]
    lines += [
        Text(f"  {_wave(job, index)}", "" if index <= job["wave"] else "dim") for index in range(len(job["waves"]))
    ]
    lines.append(_progress("open waves", counts["committed"], counts["failed"], counts["selected"], fancy=fancy))
    lines.append(_progress("whole group", counts["committed"], counts["failed"], counts["devices"], fancy=fancy))
    told: Mapping[str, Any] = dict(counts)
    lines.append(Text("  " + "  ".join(f"{name.replace('_', ' ')} {told[name]}" for name in _COUNTS)))
    if nobody(job):
        lines.append(Text(f"  {NOBODY}", "yellow"))
    if job["expires"] is not None and job["state"] in ("active", "complete"):
        lines.append(Text(f"  no device begins after {_local(job['expires'])}", "dim"))
    if job["reason"]:
        lines.append(Text(f"  because {printable.line(job['reason'])}", "yellow"))
    lines += [Text("  " + printable.line(failure(row)), "red") for row in job["failures"]]
    return Group(*lines)


def failure(row: FailureRow) -> str:
    """One device's reason, as the engine words it too."""
    return f"{row['device']}: {row['code']}" + (f" ({row['detail']})" if row["detail"] else "")


def nobody(job: Job) -> bool:
    """Whether a wave is open and yet no device takes part."""
    return job["wave"] >= 0 and not job["waves"][job["wave"]]["selected"]


def server(health: Health, jobs: Sequence[Job]) -> RenderableType:
    """The server at a glance, and what is under way."""
    table = _table("server", "version", "broker", "online", "signing")
    broker = "connected" if health["broker"]["connected"] else "not connected"
    online = f"{health['devices']['available']} of {health['devices']['total']} devices"
    table.add_row(*_cells(health["status"], health["version"], broker, online, health["signing"]))
    return Group(table, Text(), rollouts(jobs) if jobs else Text("no rollout is under way"))


def audit(entries: Sequence[AuditRow]) -> RenderableType:
    """Who did what, with the time of this machine."""
    table = _table("at", "who", "verb", "subject", "detail")
    for entry in entries:
        table.add_row(*_cells(_local(entry["at"]), entry["who"], entry["verb"], entry["subject"], entry["detail"]))
    return table if entries else Text("nothing happened yet")


def plain(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], nothing: str) -> RenderableType:
    """Any list of flat objects; `nothing` is said where it is empty."""
    table = _table(*columns)
    for row in rows:
        table.add_row(*_cells(*(row.get(column) for column in columns)))
    return table if rows else Text(nothing)


def state(name: str) -> Text:
    """A rollout's state in its colour."""
    return Text(printable.line(name), _STATE_STYLES.get(name, ""))


def age(seconds: float) -> str:
    """A duration in its largest unit."""
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def bar(done: int, failed: int, total: int, *, fancy: bool) -> Text:
    """A progress bar of committed and failed devices; empty where there are none."""
    full = round(_BAR_WIDTH * done / total) if total else 0
    broken = min(_BAR_WIDTH - full, round(_BAR_WIDTH * failed / total)) if total else 0
    rest = _BAR_WIDTH - full - broken
    good, bad, open_ = ("█", "█", "░") if fancy else ("#", "x", ".")
    return Text.assemble((good * full, "green"), (bad * broken, "red"), (open_ * rest, "dim"), f" {done}/{total}")


def _local(epoch_s: float) -> str:
    """A moment by the clock of this machine."""
    return datetime.fromtimestamp(epoch_s).astimezone().isoformat(" ", "seconds")


def _progress(name: str, done: int, failed: int, total: int, *, fancy: bool) -> Text:
    return Text.assemble(f"  {name:<12} ", bar(done, failed, total, fancy=fancy))


def _wave(job: Job, index: int) -> str:
    wave = job["waves"][index]
    named = f" and {', '.join(wave['devices'])}" if wave["devices"] else ""
    standing = "open" if index <= job["wave"] else "not yet"
    size = "1 device" if wave["selected"] == 1 else f"{wave['selected']} devices"
    return printable.line(f"wave {index + 1} of {len(job['waves'])}: {wave['share']:g} %{named}, {size}, {standing}")


def _cells(*values: Any) -> list[str]:
    return [_cell(value) for value in values]


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return printable.line(", ".join(str(item) for item in value)) or "-"
    return printable.line(value)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
