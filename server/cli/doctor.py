"""`fairlead doctor`: looks at a server, its broker and its fleet, and says what to do."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import typer
from rich.text import Text

from server.cli.options import AsJson, Server, Token
from server.cli.session import one_line_errors, open_session
from server.client import Client, ClientError

Verdict = Literal["ok", "warn", "fail"]
_MARKS: Final = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}
_SILENT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and what to do where it is not well."""

    what: str
    verdict: Verdict
    text: str


def doctor(as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Check server, token, broker, devices and rollouts; exit status 1 where something fails."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            findings = list(_examine(client, session.token))
        if as_json:
            session.show({"findings": [asdict(finding) for finding in findings]}, lambda: "")
        else:
            for finding in findings:
                mark, style = _MARKS[finding.verdict]
                session.console.print(Text.assemble((mark, style), f" {finding.what}: {finding.text}"), soft_wrap=True)
    if any(finding.verdict == "fail" for finding in findings):
        raise typer.Exit(1)


def _examine(client: Client, token: str | None) -> Iterator[Finding]:
    try:
        health = client.get("/health")
    except ClientError as error:
        yield Finding("server", "fail", error.detail)
        return
    yield Finding("server", "ok", f"version {health['version']} at {client.url}")
    yield from _server(health)
    if token is None:
        yield Finding("token", "fail", "none given: --token or FAIRLEAD_TOKEN; the server keeps it in data_dir/token")
        return
    try:
        nodes, groups = client.get("/api/nodes")["nodes"], client.get("/api/groups")["groups"]
        jobs = client.get("/api/updates")["updates"]
    except ClientError as error:
        yield Finding("token", "fail", error.detail)
        return
    yield Finding("token", "ok", "accepted")
    for check in _CHECKS:
        yield check(nodes, groups, jobs)


def _server(health: dict[str, Any]) -> Iterator[Finding]:
    if health["broker"]["connected"]:
        yield Finding("broker", "ok", f"connected to {health['broker']['url']}")
    else:
        yield Finding("broker", "fail", f"no connection to {health['broker']['url']}: is it up, may the server log in?")
    if health["status"] != "ok":
        yield Finding("health", "warn", f"the server calls itself {health['status']}: see its log")
    if health["signing"] == "server":
        yield Finding("signing", "warn", "the server holds all keys: whoever takes it can sign any release")
    else:
        yield Finding("signing", "ok", "the offline keys are not on the server")


def _devices_online(nodes: list[dict[str, Any]], _groups: list[dict[str, Any]], _jobs: list[dict[str, Any]]) -> Finding:
    away = [node["id"] for node in nodes if not node["available"]]
    if not nodes:
        return Finding("devices", "warn", "none enrolled yet: fairlead-agent enroll")
    if away:
        return Finding("devices", "warn", f"{len(away)} of {len(nodes)} are offline: {_some(away)}")
    return Finding("devices", "ok", f"{len(nodes)} online")


def _devices_silent(nodes: list[dict[str, Any]], _groups: list[dict[str, Any]], _jobs: list[dict[str, Any]]) -> Finding:
    now_s = time.time()
    mute = [n["id"] for n in nodes if n["available"] and (n["seen"] is None or now_s - n["seen"] > _SILENT_S)]
    if mute:
        return Finding("heartbeats", "warn", f"{len(mute)} online devices silent for over 10 minutes: {_some(mute)}")
    return Finding("heartbeats", "ok", "every online device was heard of in the last 10 minutes")


def _freeze(nodes: list[dict[str, Any]], groups: list[dict[str, Any]], _jobs: list[dict[str, Any]]) -> Finding:
    """Rows A12: a device that is online and obeys an old manifest may be shown old documents."""
    newest = {group["name"]: group["sequence"] for group in groups}
    behind = [n["id"] for n in nodes if n["available"] and n["sequence"] < newest.get(n["group"], 0)]
    if behind:
        return Finding("manifests", "warn", f"online devices obey an older manifest: {_some(behind)}; is one withheld?")
    return Finding("manifests", "ok", "every online device obeys its group's newest manifest")


def _attacked(nodes: list[dict[str, Any]], _groups: list[dict[str, Any]], _jobs: list[dict[str, Any]]) -> Finding:
    hit = [f"{node['id']} ({node['attack']})" for node in nodes if node["attack"]]
    if hit:
        return Finding("attacks", "warn", f"devices refused documents: {_some(hit)}")
    return Finding("attacks", "ok", "no device reports a refused document")


def _stopped(_nodes: list[dict[str, Any]], _groups: list[dict[str, Any]], jobs: list[dict[str, Any]]) -> Finding:
    held = [f"{job['job_id']} ({job['reason']})" for job in jobs if job["state"] == "held"]
    if held:
        return Finding("rollouts", "warn", f"held: {_some(held)}; fairlead resume or recall")
    return Finding("rollouts", "ok", "none is held")


def _some(items: list[str]) -> str:
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(items[:5]) + more


_Check = Callable[[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]], Finding]
_CHECKS: Final[tuple[_Check, ...]] = (_devices_online, _devices_silent, _freeze, _attacked, _stopped)
