"""Follows a rollout to its end."""

import time
from collections.abc import Mapping
from typing import Any, Final

from rich.live import Live

from server.cli import tables
from server.cli.session import Session
from server.client import Client, ClientError

EXIT_STATUS: Final = {"complete": 0, "held": 3, "recalled": 4}
_PAUSE_S: Final = 1.0


def watch(session: Session, client: Client, job_id: str) -> int:
    """Show a rollout until it ends or is held; the exit status is 0 complete, 3 held, 4 recalled.

    On a terminal the picture is redrawn in place; elsewhere each change is one plain line. A server
    that is away for a moment is waited for.
    """
    job = client.get(f"/api/updates/{job_id}")
    if session.as_json or not session.console.is_terminal:
        job = _lines(session, client, job)
    else:
        job = _picture(session, client, job)
    return EXIT_STATUS[job["state"]]


def _picture(session: Session, client: Client, job: Mapping[str, Any]) -> Mapping[str, Any]:
    with Live(tables.rollout(job), console=session.console, auto_refresh=False) as live:
        while job["state"] not in EXIT_STATUS:
            time.sleep(_PAUSE_S)
            job = _latest(client, job)
            live.update(tables.rollout(job), refresh=True)
    return job


def _lines(session: Session, client: Client, job: Mapping[str, Any]) -> Mapping[str, Any]:
    told = ""
    while True:
        line = _line(job)
        if line != told:
            session.show(job, lambda text=line: text)  # type: ignore[misc]
            told = line
        if job["state"] in EXIT_STATUS:
            return job
        time.sleep(_PAUSE_S)
        job = _latest(client, job)


def _line(job: Mapping[str, Any]) -> str:
    counts = job["counts"]
    reason = f", because {job['reason']}" if job["reason"] else ""
    return (
        f"{job['job_id']} {job['state']}, wave {job['wave'] + 1} of {len(job['waves'])}, "
        f"committed {counts['committed']} of {counts['devices']}, failed {counts['failed']}{reason}"
    )


def _latest(client: Client, job: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        newest: Mapping[str, Any] = client.get(f"/api/updates/{job['job_id']}")
    except ClientError as error:
        if error.status is not None and error.status < 500:
            raise
        return job
    return newest
