"""Commands that change something."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_protocol.errors import PolicyError
from server.catalogue_upload import upload_catalogue
from server.cli import tables
from server.cli.options import AsJson, DeviceId, JobId, Reason, Server, Token
from server.cli.session import Session, open_session
from server.cli.watch import is_fancy

OnlyPackage = Annotated[str | None, typer.Option("--package", help="Only this package; else all of the device's.")]


def hold(job: JobId, reason: Reason = "", as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Let no further device begin; those that have switched go on to their end."""
    with open_session(server, token, as_json=as_json) as session:
        _steer(session, "hold", job, reason)


def resume(
    job: JobId, reason: Reason = "", as_json: AsJson = False, server: Server = None, token: Token = None
) -> None:
    """Go on with a held rollout; what was seen so far is excused."""
    with open_session(server, token, as_json=as_json) as session:
        _steer(session, "resume", job, reason)


def advance(
    job: JobId, reason: Reason = "", as_json: AsJson = False, server: Server = None, token: Token = None
) -> None:
    """Open the next wave without waiting for its evidence; failures still stop it."""
    with open_session(server, token, as_json=as_json) as session:
        _steer(session, "advance", job, reason)


def recall(
    job: JobId, reason: Reason = "", as_json: AsJson = False, server: Server = None, token: Token = None
) -> None:
    """Order every device of a rollout back to what it ran before."""
    with open_session(server, token, as_json=as_json) as session:
        _steer(session, "recall", job, reason)


def retry(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="A rollout: all of its failed devices.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="One device instead: all that failed there.")] = None,
    package: OnlyPackage = None,
    reason: Reason = "",
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Let devices that failed try once more: those of a rollout, or one device."""
    with open_session(server, token, as_json=as_json) as session:
        if (job is None) == (device is None):
            raise PolicyError("bad-request", "say what to retry: a JOB, or --device ID")
        if device is not None:
            _command(session, device, "retry", package)
        elif package is not None:
            raise PolicyError("bad-request", "--package goes with --device; a rollout has one package")
        else:
            _steer(session, "retry", str(job), reason)


def rollback(
    device: DeviceId,
    package: OnlyPackage = None,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Order one device back to its other slot."""
    with open_session(server, token, as_json=as_json) as session:
        _command(session, device, "rollback", package)


def enrol(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id, as in its agent.toml.")],
    group: Annotated[str, typer.Option(help="The group that it joins.")],
    device_class: Annotated[str, typer.Option("--class", help="Its hardware class, as in its agent.toml.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The public key that `fairlead-agent init` printed.")],
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Enrol a device by its public key. On the device itself, `fairlead-agent enroll` does the same."""
    with open_session(server, token, as_json=as_json) as session:
        answer = session.client.enrol(device, group, device_class, _public_key(key))
        session.show(answer, lambda: tables.enrolled(answer, group))


def move(
    device: DeviceId,
    group: Annotated[str, typer.Argument(help="The group that it joins.")],
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Move a device to another group."""
    with open_session(server, token, as_json=as_json) as session:
        answer = session.client.move(device, group)
        session.show(answer, lambda: f"{device} is in group {group}")


def remove(device: DeviceId, as_json: AsJson = False, server: Server = None, token: Token = None) -> None:
    """Remove a device for good: its key is forgotten, and what it sends is refused. Revoke its certificate too."""
    with open_session(server, token, as_json=as_json) as session:
        answer = session.client.remove(device)
        session.show(answer, lambda: f"{device} is removed from group {answer['group']}")


def upload(
    folder: Annotated[Path, typer.Argument(help="The folder that fairlead-firmware works on.")],
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Upload a signed catalogue: first the artifacts that the server lacks, then the documents."""
    with open_session(server, token, as_json=as_json) as session:
        answer = upload_catalogue(session.client, folder)
        text = f"root {answer['root']}, targets {answer['targets']}, {answer['releases']} releases"
        session.show(answer, lambda: text)


def _steer(session: Session, verb: str, job: str, reason: str) -> None:
    answer = session.client.steer(job, verb, reason)
    session.show(answer, lambda: tables.rollout(answer, fancy=is_fancy(session)))


def _command(session: Session, device: str, name: str, package: str | None) -> None:
    answer = session.client.command(device, name, package)
    session.show(answer, lambda: f"{device} accepted {name}" + (f" of {package}" if package else ""))


def _public_key(path: Path) -> dict[str, Any]:
    try:
        key = json.loads(path.read_bytes())
    except ValueError:
        key = None
    if not isinstance(key, dict):
        raise PolicyError("keys", f"{path} is not a public key in JSON, as fairlead-agent init prints it")
    return key
