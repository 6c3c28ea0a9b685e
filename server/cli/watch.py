"""Follows rollouts to their end."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_PAUSE_MOST_S: Final = 30.0
_SHARE: Final = 10.0
"""A server is kept busy by one who watches for at most a tenth of its time: counting a large fleet takes a while."""


def watch(session: Session, job_ids: Sequence[str], *, pause: Callable[[float], None] = time.sleep) -> int:
    """Show rollouts until each has ended or is held; the exit status is 0 complete, 3 held, 4 recalled.

    On a terminal the picture is redrawn in place; elsewhere each change is one plain line, and with
    `--json` one line of JSON. A server that is away is waited for.
    """
    jobs = [session.client.job(job_id) for job_id in job_ids]
    news = _news(session.client, jobs, pause)
    if session.as_json or not session.console.is_terminal:
        jobs = _lines(session, jobs, news)
    else:
        jobs = _picture(session, jobs, news)
    return max((EXIT_STATUS[job["state"]] for job in jobs), default=0)


def pause_s(took_s: float) -> float:
    """How long to wait after an answer that took so long."""
    return min(_PAUSE_MOST_S, max(_PAUSE_S, _SHARE * took_s))


def _news(client: Client, jobs: list[Job], pause: Callable[[float], None]) -> Iterator[tuple[list[Job], str]]:
    """The rollouts after each pause, with a line where nobody could be asked, until each has ended or is held.

    The API has nothing to wait for: it is asked again, at a pace that a busy server can bear.
    """
    took_s = 0.0
    while _going_on(jobs):
        pause(pause_s(took_s))
        began_s = time.monotonic()
        jobs, away = _latest(client, jobs)
        took_s = 0.0 if away else time.monotonic() - began_s
        yield jobs, away


def _picture(session: Session, jobs: list[Job], news: Iterable[tuple[list[Job], str]]) -> list[Job]:
    fancy = is_fancy(session)
    newest = jobs
    with Live(_drawn(jobs, fancy=fancy), console=session.console, auto_refresh=False) as live:
        for newest, away in news:
            live.update(_drawn(newest, away, fancy=fancy), refresh=True)
    return newest


def _lines(session: Session, jobs: list[Job], news: Iterable[tuple[list[Job], str]]) -> list[Job]:
    told: dict[str, str] = {}
    _tell(session, jobs, told)
    newest, gone = jobs, ""
    for newest, away in news:
        _tell(session, newest, told)
        if away and away != gone:
            sys.stderr.write(f"fairlead: {printable.line(away)}; waiting for it\n")
        gone = away
    return newest


def _tell(session: Session, jobs: list[Job], told: dict[str, str]) -> None:
    """Each rollout that is not as it was told last."""
    for job in jobs:
        text = json.dumps(job, sort_keys=True) if session.as_json else _line(job)
        if told.get(job["job_id"]) != text:
            typer.echo(text)
            sys.stdout.flush()
            told[job["job_id"]] = text


def is_fancy(session: Session) -> bool:
    """Whether more than ASCII may be drawn."""
    return session.console.is_terminal and session.console.encoding.lower().startswith("utf")


def _drawn(jobs: Sequence[Job], away: str = "", *, fancy: bool) -> RenderableType:
    drawn: list[RenderableType] = [tables.rollout(job, fancy=fancy) for job in jobs]
    return Group(*drawn, *([Text(printable.line(away), "yellow")] if away else []))


def _line(job: Job) -> str:
    counts = job["counts"]
    empty = f", {tables.NOBODY}" if tables.nobody(job) else ""
    reason = f", because {job['reason']}" if job["reason"] else ""
    told = [tables.failure(row) for row in job["failures"]]
    failures = "".join(f", {text}" for text in told if text not in job["reason"])
    return printable.line(
        f"{job['job_id']} {job['state']}, wave {job['wave'] + 1} of {len(job['waves'])}, "
        f"committed {counts['committed']} of {counts['devices']}, selected {counts['selected']}, "
        f"failed {counts['failed']}, in progress {counts['in_progress']}, silent {counts['silent']}"
        f"{empty}{reason}{failures}"
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
