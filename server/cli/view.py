"""Commands that look."""

from typing import Annotated

import typer

from fleet_protocol.errors import PolicyError
from server.cli import tables
from server.cli.options import AsJson, Server, Token, Watch, names
from server.cli.session import one_line_errors, open_session
from server.cli.watch import watch as follow

Node = Annotated[str, typer.Argument(help="The device's name.")]


def devices(
    group: Annotated[str | None, typer.Option(help="Only this group.")] = None,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """List devices: whether they are online, what they run, and why they are not updating."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            answer = client.get("/api/nodes", group=group)
            session.show(answer, lambda: tables.devices(answer["nodes"]))


def rollouts(
    state: Annotated[str | None, typer.Option(help="active, held, recalled or complete.")] = None,
    group: Annotated[str | None, typer.Option(help="Only this group.")] = None,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """List rollouts."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            answer = client.get("/api/updates", state=state, group=group)
            session.show(answer, lambda: tables.rollouts(answer["updates"]))


def status(
    job: Annotated[str | None, typer.Argument(help="A rollout; without it, the server.")] = None,
    watch: Watch = False,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Show one rollout, or how the server is; --watch follows the rollout (by default the newest) to its end."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            if watch:
                job = job or _newest(client.get("/api/updates")["updates"])
                raise typer.Exit(follow(session, client, job))
            if job is not None:
                one = client.get(f"/api/updates/{job}")
                session.show(one, lambda: tables.rollout(one))
                return
            health = client.get("/health")
            row = {
                "status": health["status"],
                "version": health["version"],
                "broker": "connected" if health["broker"]["connected"] else "not connected",
                "online": f"{health['devices']['available']} of {health['devices']['total']} devices",
                "active": f"{health['rollouts']['active']} rollouts",
                "signing": health["signing"],
            }
            session.show(health, lambda: tables.plain([row], list(row), ""))


def groups(as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """List groups and the sequence of their newest manifest."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            answer = client.get("/api/groups")
            columns = ("name", "sequence", "devices")
            session.show(answer, lambda: tables.plain(answer["groups"], columns, "no groups yet"))


def releases(as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """List what the signed catalogue allows to be installed today."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            answer = client.get("/api/releases")
            columns = ("package", "version", "counter", "kind", "classes", "text")
            nothing = "the catalogue is empty: fairlead-firmware add and sign, then fairlead upload"
            session.show(answer, lambda: tables.plain(answer["releases"], columns, nothing))


def services(node: Node, as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Ask a device for its services."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            answer = client.get(f"/api/nodes/{node}/services")
            columns = ("name", "running", "pid", "restarts", "version")
            session.show(answer, lambda: tables.plain(answer["services"], columns, "the device runs no services"))


def logs(
    node: Node,
    service: Annotated[str, typer.Argument(help="The service's name.")],
    lines: Annotated[int, typer.Option(help="How many at the most.", min=1, max=10_000)] = 100,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Ask a device for the newest log lines of a service."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            answer = client.get(f"/api/nodes/{node}/logs/{service}", lines=lines)
            if as_json:
                session.show(answer, lambda: "")
                return
            for line in answer["lines"]:
                typer.echo(line)


def health(
    nodes: Annotated[str | None, typer.Option(help="Devices by name: node-1,node-2.")] = None,
    group: Annotated[str | None, typer.Option(help="All devices of a group.")] = None,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Ask devices to check their health now."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        body = {"target_nodes": names(nodes) if nodes else None, "group": group}
        with session.client() as client:
            answer = client.post("/api/health-checks", {name: value for name, value in body.items() if value})
            rows = [
                {"device": device, "verdict": result.get("verdict", result.get("code")), "checks": _bad_checks(result)}
                for device, result in sorted(answer["results"].items())
            ]
            session.show(answer, lambda: tables.plain(rows, ("device", "verdict", "checks"), "no devices were asked"))


def audit(
    most: Annotated[int, typer.Option(help="How many entries.", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Who did what, newest first."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            answer = client.get("/api/audit", most=most)
            columns = ("at", "who", "verb", "subject", "detail")
            session.show(answer, lambda: tables.plain(answer["entries"], columns, "nothing happened yet"))


def _newest(jobs: list[dict[str, object]]) -> str:
    if not jobs:
        raise PolicyError("unknown-update", "there is no rollout yet: fairlead publish starts one")
    return str(max(jobs, key=lambda job: str(job["created"]))["job_id"])


def _bad_checks(result: dict[str, object]) -> str:
    checks = result.get("checks")
    if not isinstance(checks, list):
        return str(result.get("detail", ""))
    bad = [f"{check['name']}: {check['text']}" for check in checks if check["verdict"] != "ok"]
    return "; ".join(bad) or f"{len(checks)} checks ok"
