"""Options that several commands share, each with one spelling and one help text."""

from typing import Annotated

import typer

from fleet_protocol.errors import PolicyError

Server = Annotated[
    str | None, typer.Option("--server", help="The server's address; else FAIRLEAD_SERVER, else this machine's 8080.")
]
Token = Annotated[
    str | None, typer.Option("--token", help="The API token; else FAIRLEAD_TOKEN, else a local server's token file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit log.")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Follow it to its end; exit status 0 complete, 3 held, 4 recalled.")
]


def percentages(text: str) -> list[dict[str, float]]:
    """`5,25,100` as the waves of a request, or PolicyError `bad-request`."""
    try:
        shares = [float(part.strip().removesuffix("%")) for part in text.split(",")]
    except ValueError:
        raise PolicyError("bad-request", f"--waves {text!r}: give percentages, such as 5,25,100") from None
    if shares != sorted(shares) or not all(0 <= share <= 100 for share in shares):
        raise PolicyError("bad-request", f"--waves {text!r}: no wave is narrower than the one before, none over 100")
    return [{"share": share} for share in shares]


def names(text: str) -> list[str]:
    """`a,b` as a list without empty names."""
    return [part.strip() for part in text.split(",") if part.strip()]
