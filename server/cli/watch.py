"""Follows rollouts to their end."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from server.answers import Job
from server.cli import printable, tables
from server.cli.session import Session
from server.client import Client, ClientError

EXIT_STATUS: Final = {"complete": 0, "held": 3, "recalled": 4}
"""How a rollout that went no further ended; the worst of several counts."""
_PAUSE_S: Final = 1.0


def watch(session: Session, job_ids: Sequence[str], *, pause: Callable[[], None] | None = None) -> int:
    """Show rollouts until each has ended or is held; the exit status is 0 complete, 3 held, 4 recalled.

    On a terminal the picture is redrawn in place; elsewhere each change is one plain line, and with
    `--json` one line of JSON. A server that is away is waited for.
    """
    rest = pause or (lambda: time.sleep(_PAUSE_S))
    jobs = [session.client.job(job_id) for job_id in job_ids]
    if session.as_json or not session.console.is_terminal:
        jobs = _lines(session, jobs, rest)
    else:
        jobs = _picture(session, jobs, rest)
    return max((EXIT_STATUS[job["state"]] for job in jobs), default=0)


def _picture(session: Session, jobs: list[Job], rest: Callable[[], None]) -> list[Job]:
    fancy = is_fancy(session)
    with Live(_drawn(jobs, fancy=fancy), console=session.console, auto_refresh=False) as live:
        while _going_on(jobs):
            rest()
            jobs, away = _latest(session.client, jobs)
            live.update(_drawn(jobs, away, fancy=fancy), refresh=True)
    return jobs


def _lines(session: Session, jobs: list[Job], rest: Callable[[], None]) -> list[Job]:
    told: dict[str, str] = {}
    gone = ""
    while True:
        for job in jobs:
            text = json.dumps(job, sort_keys=True) if session.as_json else _line(job)
            if told.get(job["job_id"]) != text:
                typer.echo(text)
                sys.stdout.flush()
                told[job["job_id"]] = text
        if not _going_on(jobs):
            return jobs
        rest()
        jobs, away = _latest(session.client, jobs)
        if away and away != gone:
            sys.stderr.write(f"fairlead: {printable.line(away)}; waiting for it\n")
        gone = away


def is_fancy(session: Session) -> bool:
    """Whether more than ASCII may be drawn."""
    return session.console.is_terminal and session.console.encoding.lower().startswith("utf")


def _drawn(jobs: Sequence[Job], away: str = "", *, fancy: bool) -> RenderableType:
    drawn: list[RenderableType] = [tables.rollout(job, fancy=fancy) for job in jobs]
    return Group(*drawn, *([Text(printable.line(away), "yellow")] if away else []))


def _line(job: Job) -> str:
    counts = job["counts"]
    reason = f", because {job['reason']}" if job["reason"] else ""
    failures = "".join(f", {row['device']}: {row['code']} ({row['detail']})" for row in job["failures"])
    return printable.line(
        f"{job['job_id']} {job['state']}, wave {job['wave'] + 1} of {len(job['waves'])}, "
        f"committed {counts['committed']} of {counts['devices']}, failed {counts['failed']}, "
        f"in progress {counts['in_progress']}, silent {counts['silent']}{reason}{failures}"
    )


def _going_on(jobs: Sequence[Job]) -> bool:
    return any(job["state"] not in EXIT_STATUS for job in jobs)


def _latest(client: Client, jobs: list[Job]) -> tuple[list[Job], str]:
    """The rollouts as they are now; as they were, with a line that says why, where nobody can be asked."""
    try:
        return [client.job(job["job_id"]) for job in jobs], ""
    except ClientError as error:
        if error.status is not None and error.status < 500:
            raise
        return jobs, error.detail
