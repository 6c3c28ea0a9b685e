"""Commands that look."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from fleet_protocol.errors import PolicyError
from server.answers import Job, NodeDetail
from server.cli import printable, tables
from server.cli.options import AsJson, DeviceId, InGroup, Server, Token, Watch, names
from server.cli.session import Session, one_line_errors, open_session
from server.cli.watch import is_fancy
from server.cli.watch import watch as follow
from server.client import ClientError

_STATES = ("active", "held", "recalled", "complete")


def devices(
    context: typer.Context,
    group: InGroup = None,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """List devices: whether they are online, what they run, and why they are not updating. Or show or remove one.

    fairlead devices node-1
    """
    if context.invoked_subcommand is not None:
        _nothing_before(context.invoked_subcommand, given=(group, server, token) != (None, None, None) or as_json)
        return
    with open_session(server, token, as_json=as_json) as session:
        answer = session.client.nodes(group)
        session.show(answer, lambda: tables.devices(answer["nodes"]))


def show(device: DeviceId, as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Show one device: why it is not updating, what it runs, its services and attempts. `fairlead devices DEVICE`."""
    with open_session(server, token, as_json=as_json) as session:
        answer = session.client.node(device)
        session.show(answer, lambda: tables.device(answer, _services(session, answer)))


def rollouts(
    state: Annotated[str | None, typer.Option(help=f"Only {', '.join(_STATES[:-1])} or {_STATES[-1]} ones.")] = None,
    group: InGroup = None,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """List rollouts, the newest first."""
    with open_session(server, token, as_json=as_json) as session:
        if state is not None and state not in _STATES:
            raise PolicyError("bad-request", f"--state {state}: a rollout is {', '.join(_STATES)}")
        answer = session.client.jobs(state, group)
        session.show(answer, lambda: tables.rollouts(answer["updates"]))


def status(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="A rollout; without it, the server.")] = None,
    watch: Watch = False,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Show one rollout, or the server and what is under way.

    With --watch: follow the rollout, or without JOB all active ones, or where there are none the newest.
    """
    with open_session(server, token, as_json=as_json) as session:
        if watch:
            raise typer.Exit(follow(session, [job] if job is not None else _interesting(session)))
        if job is not None:
            one = session.client.job(job)
            session.show(one, lambda: tables.rollout(one, fancy=is_fancy(session)))
            return
        health, active = session.client.health(), session.client.jobs("active")["updates"]
        session.show(dict(health) | {"updates": active}, lambda: tables.server(health, active))


def groups(as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """List groups, and the sequence of each one's newest manifest."""
    with open_session(server, token, as_json=as_json) as session:
        answer = session.client.groups()
        columns = ("name", "sequence", "devices")
        session.show(answer, lambda: tables.plain(answer["groups"], columns, "no groups yet"))


def releases(as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """List what the signed catalogue allows to be installed today."""
    with open_session(server, token, as_json=as_json) as session:
        answer = session.client.releases()
        columns = ("package", "version", "counter", "kind", "classes", "text")
        nothing = "the catalogue is empty: fairlead-firmware add and sign, then fairlead catalogue upload"
        session.show(answer, lambda: tables.plain(answer["releases"], columns, nothing))


def services(device: DeviceId, as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Ask a device for its services."""
    with open_session(server, token, as_json=as_json) as session:
        answer = session.client.services(device)
        session.show(answer, lambda: tables.plain(answer["services"], tables.SERVICE, "the device runs no services"))


def logs(
    device: DeviceId,
    service: Annotated[str, typer.Argument(help="The service, as `fairlead services DEVICE` lists it.")],
    lines: Annotated[int, typer.Option(help="How many at the most.", min=1, max=10_000)] = 100,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Ask a device for the newest log lines of a service."""
    with open_session(server, token, as_json=as_json) as session:
        answer = session.client.logs(device, service, lines)
        if as_json:
            session.show(answer, lambda: "")
            return
        for line in answer["lines"]:
            typer.echo(printable.text(line))


def health(
    named: Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Devices by id.")] = None,
    devices: Annotated[str | None, typer.Option("--nodes", metavar="ID,ID", help="The same: node-1,node-2.")] = None,
    group: InGroup = None,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Ask devices to check their health now: those named, a group, or all. Exit status 1 unless all are ok."""
    with open_session(server, token, as_json=as_json) as session:
        asked = [*(named or []), *([] if devices is None else [devices])]
        answer = session.client.health_checks(names(",".join(asked)) if asked else [], group)
        rows = [
            {"device": device, "verdict": _verdict(result), "checks": _checks(result)}
            for device, result in sorted(answer["results"].items())
        ]
        session.show(answer, lambda: tables.plain(rows, ("device", "verdict", "checks"), "no devices were asked"))
        if any(row["verdict"] != "ok" for row in rows):
            raise typer.Exit(1)


def audit(
    most: Annotated[int, typer.Option(help="How many entries.", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Who did what, newest first."""
    with open_session(server, token, as_json=as_json) as session:
        answer = session.client.audit(most)
        session.show(answer, lambda: tables.audit(answer["entries"]))


def _nothing_before(verb: str, *, given: bool) -> None:
    """An option in front of the verb would be ignored: `--server` there must not remove a device somewhere else."""
    with one_line_errors():
        if given:
            raise PolicyError("bad-request", f"options go behind: fairlead devices {verb} DEVICE --server URL")


def _interesting(session: Session) -> list[str]:
    active = session.client.jobs("active")["updates"]
    if active:
        return [job["job_id"] for job in active]
    jobs: list[Job] = session.client.jobs()["updates"]
    if not jobs:
        raise PolicyError("unknown-update", "there is no rollout yet: fairlead publish starts one")
    return [max(jobs, key=lambda job: job["created"])["job_id"]]


def _services(session: Session, node: NodeDetail) -> Sequence[Mapping[str, Any]] | str:
    """What the device answers; one that is away is not waited for."""
    if not node["available"]:
        return "services: the device is offline"
    try:
        return session.client.services(node["id"])["services"]
    except ClientError as error:
        return f"services: {error.detail} ({error.code})"


def _verdict(result: dict[str, Any]) -> str:
    return str(result.get("verdict", result.get("code", "unknown")))


def _checks(result: dict[str, Any]) -> str:
    checks = result.get("checks")
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        return str(result.get("detail", ""))
    bad = [f"{check.get('name')}: {check.get('text')}" for check in checks if check.get("verdict") != "ok"]
    return "; ".join(bad) or f"{len(checks)} checks ok"
