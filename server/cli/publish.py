"""`fairlead publish`: a release to a group or to named devices."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_protocol.errors import PolicyError
from fleet_protocol.ids import check_id
from server.catalogue_upload import upload_catalogue
from server.cli import tables
from server.cli.options import AsJson, Server, Token, Watch, names, percentages
from server.cli.session import open_session
from server.cli.watch import is_fancy
from server.cli.watch import watch as follow
from server.domain.rollout import DEFAULT_SHARES


def publish(
    package: Annotated[str, typer.Argument(help="The package, as in the catalogue.")],
    version: Annotated[str, typer.Argument(help="The version, as in the catalogue.")],
    group: Annotated[str | None, typer.Option(help="The group that gets it.")] = None,
    nodes: Annotated[str | None, typer.Option(help="Devices that get it, by name: node-1,node-2.")] = None,
    waves: Annotated[str | None, typer.Option(help="Cumulative percentages: 5,25,100.")] = None,
    canary: Annotated[list[str] | None, typer.Option(metavar="DEVICE", help="In the first wave, by name.")] = None,
    soak: Annotated[float | None, typer.Option(help="Seconds that a wave stays open before the next.")] = None,
    probation: Annotated[int | None, typer.Option(help="Seconds that a device watches before it commits.")] = None,
    failure_limit: Annotated[int | None, typer.Option(help="Failed devices that are tolerated.")] = None,
    failure_rate: Annotated[float | None, typer.Option(help="Tolerated share of failures, 0 to 1.")] = None,
    silence: Annotated[float | None, typer.Option(help="Seconds after which a device counts as silent.")] = None,
    silence_limit: Annotated[int | None, typer.Option(help="Silent devices that are tolerated.")] = None,
    on_failure: Annotated[str | None, typer.Option(help="recall or hold.")] = None,
    not_before: Annotated[str | None, typer.Option(help="No device begins before: 2026-12-01T06:00:00Z.")] = None,
    expires: Annotated[
        float | None, typer.Option(help="Seconds from now after which no device begins any more.")
    ] = None,
    window: Annotated[str | None, typer.Option(help="Hours (UTC) in which a device may begin: 22:00-04:30.")] = None,
    url: Annotated[str | None, typer.Option(help="Where devices download; else from the server.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Refuse a release of another kind than this.")] = None,
    irreversible: Annotated[bool, typer.Option("--irreversible", help="Also where there is no way back.")] = False,
    update_id: Annotated[
        str | None, typer.Option("--id", help="The job's name: publishing twice is then once.")
    ] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    catalogue: Annotated[
        Path | None, typer.Option(help="Upload this signed catalogue first: the folder fairlead-firmware works on.")
    ] = None,
    watch: Watch = False,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Publish a release of the catalogue in waves; each opens on the evidence of the one before.

    fairlead publish my-service 1.2.0 --group line-1 --waves 5,25,100 --canary node-1 --soak 600 --watch
    """
    with open_session(server, token, as_json=as_json) as session:
        if (group is None) == (nodes is None):
            raise PolicyError("bad-request", "say who gets it: either --group NAME or --nodes a,b")
        options: dict[str, Any] = {
            "update_id": update_id,
            "group": group,
            "target_nodes": None if nodes is None else names(nodes),
            "waves": _waves(waves, canary or [], to_group=group is not None),
            "soak_s": soak,
            "probation_s": probation,
            "failure_limit": failure_limit,
            "failure_rate": failure_rate,
            "silence_s": silence,
            "silence_limit": silence_limit,
            "on_failure": on_failure,
            "not_before": not_before,
            "expires_s": expires,
            "window": window,
            "package_url": url,
            "update_type": kind,
            "irreversible": irreversible or None,
        }
        body = {name: value for name, value in options.items() if value is not None}
        body |= {"package_name": package, "package_version": version, "description": description}
        if catalogue is not None:
            upload_catalogue(session.client, catalogue)
        job = session.client.publish(body)
        if not watch:
            session.show(job, lambda: tables.rollout(job, fancy=is_fancy(session)))
            return
        raise typer.Exit(follow(session, [job["job_id"]]))


def _waves(waves: str | None, canaries: list[str], *, to_group: bool) -> list[dict[str, Any]] | None:
    """The waves of the request; None where the server's own will do."""
    if waves is None and not canaries:
        return None
    shares = [share_bp / 100 for share_bp in DEFAULT_SHARES] if waves is None else percentages(waves)
    asked: list[dict[str, Any]] = [{"share": share} for share in shares]
    if canaries:
        if not to_group:
            raise PolicyError("bad-request", "--canary goes with --group: --nodes get the release at once")
        asked[0]["devices"] = [check_id(device, "device") for device in canaries]
    return asked
