"""Options and arguments that several commands share, each with one spelling and one help text."""

from typing import Annotated

import typer

from fleet_protocol.errors import PolicyError
from fleet_protocol.ids import check_id

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="The server; else FAIRLEAD_SERVER, the configuration file, this machine's 8080.",
        rich_help_panel="Connection",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        help="The API token, or @FILE; else FAIRLEAD_TOKEN, the configuration file, a local server's token file.",
        rich_help_panel="Connection",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines: the REST API's own bodies.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit log and for whoever looks later.")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Follow it to its end; exit status 0 complete, 3 held, 4 recalled.")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The rollout's id, as `fairlead rollouts` lists it.")]
DeviceId = Annotated[str, typer.Argument(metavar="DEVICE", help="The device's id, as `fairlead devices` lists it.")]
InGroup = Annotated[str | None, typer.Option("--group", help="Only this group.")]


def percentages(text: str) -> list[float]:
    """`5,25,100` as the shares of a request's waves, or PolicyError `bad-request`."""
    try:
        shares = [float(part.strip().removesuffix("%")) for part in text.split(",")]
    except ValueError:
        raise PolicyError("bad-request", f"--waves {text!r}: give percentages, such as 5,25,100") from None
    if shares != sorted(shares) or not all(0 <= share <= 100 for share in shares):
        raise PolicyError("bad-request", f"--waves {text!r}: no wave is narrower than the one before, none over 100")
    return shares


def names(text: str, what: str = "device") -> list[str]:
    """`a,b` as a list of ids; raises PolicyError `bad-request` where there is none, ProtocolError for a bad one."""
    found = [check_id(part.strip(), what) for part in text.split(",") if part.strip()]
    if not found:
        raise PolicyError("bad-request", f"{text!r} names no {what}: give ids, such as node-1,node-2")
    return found
