"""Commands that change something."""

from pathlib import Path
from typing import Annotated, Any

import typer

from server.catalogue_upload import upload_catalogue
from server.cli import tables
from server.cli.options import AsJson, Reason, Server, Token
from server.cli.session import one_line_errors, open_session

Job = Annotated[str, typer.Argument(help="The rollout's job id.")]
Node = Annotated[str, typer.Argument(help="The device's name.")]


def hold(job: Job, reason: Reason = "", as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Let no device begin; those that have switched go on to their end."""
    _verb("hold", job, reason, server, token, as_json=as_json)


def resume(job: Job, reason: Reason = "", as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Go on with a held rollout; what was seen so far is excused."""
    _verb("resume", job, reason, server, token, as_json=as_json)


def advance(job: Job, reason: Reason = "", as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Open the next wave without waiting for its evidence; failures still stop it."""
    _verb("advance", job, reason, server, token, as_json=as_json)


def recall(job: Job, reason: Reason = "", as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Order every device of a rollout back to what it ran before."""
    _verb("recall", job, reason, server, token, as_json=as_json)


def retry(job: Job, reason: Reason = "", as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Let devices that failed try once more."""
    _verb("retry", job, reason, server, token, as_json=as_json)


def rollback(
    node: Node,
    package: Annotated[str | None, typer.Option(help="Only this package; else all.")] = None,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Order one device back to its other slot."""
    _ask_put("post", f"/api/nodes/{node}/rollback", {"package": package}, server, token, as_json=as_json)


def move(
    node: Node,
    group: Annotated[str, typer.Argument(help="The group that it joins.")],
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Move a device to another group."""
    _ask_put("put", f"/api/nodes/{node}/group", {"group": group}, server, token, as_json=as_json)


def upload(
    folder: Annotated[Path, typer.Argument(help="The folder that fairlead-firmware works on.")],
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Upload a signed catalogue and its artifacts."""
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            answer = upload_catalogue(client, folder)
            text = f"root {answer['root']}, targets {answer['targets']}, {answer['releases']} releases"
            session.show(answer, lambda: text)


def _verb(verb: str, job: str, reason: str, server: str | None, token: str | None, *, as_json: bool) -> None:
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            answer = client.post(f"/api/updates/{job}/{verb}", {"reason": reason} if reason else {})
            session.show(answer, lambda: tables.rollout(answer))


def _ask_put(
    method: str, path: str, body: dict[str, Any], server: str | None, token: str | None, *, as_json: bool
) -> None:
    with one_line_errors():
        session = open_session(server, token, as_json=as_json)
        with session.client() as client:
            answer = client.put(path, body) if method == "put" else client.post(path, body)
            session.show(answer, lambda: "done")
