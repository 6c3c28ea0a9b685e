"""What `fairlead doctor` finds in a server's answers: one line each, with what to do where it is not well."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from server.answers import GroupRow, Health, Job, Node
from server.cli.tables import age
from server.client import is_local

Verdict = Literal["ok", "warn", "fail"]
SILENT_S: Final = 600.0
SKEW_WARN_S: Final = 10.0
SKEW_FAIL_S: Final = 300.0
EXPIRY_WARN_S: Final = 14 * 86_400.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `text` says what to do where the verdict is not ok."""

    what: str
    verdict: Verdict
    text: str


def of_server(health: Health, url: str) -> Iterator[Finding]:
    """The server itself."""
    yield Finding("server", "ok", f"version {health['version']} at {url}")
    problems: Any = dict(health).get("problems", [])
    for problem in problems if isinstance(problems, list) else []:
        yield Finding("health", "warn", str(problem))
    if health["status"] != "ok" and not problems:
        yield Finding("health", "warn", f"the server calls itself {health['status']}: see its log")
    if health["broker"]["connected"]:
        yield Finding("broker", "ok", f"the server is connected to {health['broker']['url']}")
    else:
        advice = "is it up, may the server log in? See the server's log"
        yield Finding("broker", "fail", f"the server has no connection to {health['broker']['url']}: {advice}")
    if health["signing"] == "server":
        yield Finding("signing", "warn", "the server holds all keys: whoever takes it can sign any release")
    else:
        yield Finding("signing", "ok", "the offline keys are not on the server")
    if urlsplit(url).scheme == "http" and not is_local(url):
        yield Finding("token", "warn", "the token travels in the clear: put TLS before the server")


def of_clock(server_s: float | None, here_s: float) -> Finding:
    """The server's clock against this machine's; its answers are dated to the second."""
    if server_s is None:
        return Finding("clock", "warn", "the server does not date its answers: is a proxy in between?")
    apart_s = abs(server_s - here_s)
    if apart_s >= SKEW_FAIL_S:
        return Finding("clock", "fail", f"this machine and the server are {age(apart_s)} apart: set both by NTP")
    if apart_s >= SKEW_WARN_S:
        return Finding("clock", "warn", f"this machine and the server are {age(apart_s)} apart: do both use NTP?")
    return Finding("clock", "ok", "this machine and the server agree")


def of_expiry(what: str, not_after_s: float, now_s: float, advice: str) -> Finding:
    """Something that ends at a moment: expired, soon, or later."""
    left_s = not_after_s - now_s
    if left_s <= 0:
        return Finding(what, "fail", f"expired {age(-left_s)} ago: {advice}")
    if left_s < EXPIRY_WARN_S:
        return Finding(what, "warn", f"expires in {age(left_s)}: {advice}")
    return Finding(what, "ok", f"expires in {age(left_s)}")


def of_devices(nodes: Sequence[Node], groups: Sequence[GroupRow]) -> Iterator[Finding]:
    """Devices that are away, silent, behind, or under attack."""
    if not nodes:
        yield Finding("devices", "warn", "none is enrolled yet: fairlead-agent enroll")
        return
    away = [node["id"] for node in nodes if not node["available"]]
    if away:
        yield Finding("devices", "warn", f"{len(away)} of {len(nodes)} are offline: {some(away)}")
    else:
        yield Finding("devices", "ok", f"all {len(nodes)} are online")
    now_s = time.time()
    mute = [n["id"] for n in nodes if n["available"] and (n["seen"] is None or now_s - n["seen"] > SILENT_S)]
    if mute:
        advice = "a broker that keeps dead connections, or agents that hang"
        yield Finding("heartbeats", "warn", f"online, but silent for over {age(SILENT_S)}: {some(mute)}; {advice}")
    else:
        yield Finding("heartbeats", "ok", f"every online device was heard of in the last {age(SILENT_S)}")
    yield _freeze(nodes, groups)
    hit = [f"{node['id']} ({_refusals(node)})" for node in nodes if node["attacks"]]
    if hit:
        yield Finding("attacks", "warn", f"devices refused documents: {some(hit)}; docs/errors.md says what each means")
    else:
        yield Finding("attacks", "ok", "no device reports a refused document")


def _refusals(node: Node) -> str:
    """By code, how many documents the device has refused in its life."""
    return ", ".join(f"{code} {number}" for code, number in sorted(node["attacks"].items()))


def _freeze(nodes: Sequence[Node], groups: Sequence[GroupRow]) -> Finding:
    """Row A12 of the attack list: a device that is online and obeys an old manifest may be shown old documents."""
    newest = {group["name"]: group["sequence"] for group in groups}
    behind = [
        f"{node['id']} ({node['sequence']} of {newest[node['group']]})"
        for node in nodes
        if node["available"] and node["sequence"] < newest.get(node["group"], 0)
    ]
    if behind:
        advice = "ask again in a minute; if it stays, somebody withholds documents"
        return Finding("manifests", "warn", f"online devices obey an older manifest: {some(behind)}; {advice}")
    return Finding("manifests", "ok", "every online device obeys its group's newest manifest")


def of_rollouts(jobs: Sequence[Job]) -> Finding:
    """Rollouts that wait for an operator."""
    held = [f"{job['job_id']} ({job['reason'] or 'by an operator'})" for job in jobs if job["state"] == "held"]
    if held:
        return Finding("rollouts", "warn", f"held: {some(held)}; fairlead resume or recall")
    return Finding("rollouts", "ok", "none is held")


def some(items: Sequence[str]) -> str:
    """The first five, and how many more."""
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(items[:5]) + more
