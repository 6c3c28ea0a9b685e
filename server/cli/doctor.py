"""`fairlead doctor`: looks at a server, its broker and its fleet, and says what to do."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer
from rich.text import Text

from fleet_protocol.errors import FleetError
from fleet_protocol.topics import DEFAULT_PREFIX, Topics
from server.answers import Health
from server.cli import findings, printable
from server.cli.broker_findings import of_broker
from server.cli.broker_probe import BrokerAccount, server_certificate_end_s
from server.cli.findings import Finding
from server.cli.options import AsJson, Server, Token
from server.cli.session import Session, open_session
from server.client import Client, ClientError, is_local

_MARKS: Final = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("fail", "red")}
_PANEL: Final = "Broker"


def doctor(
    broker: Annotated[
        str | None,
        typer.Option(metavar="URL", rich_help_panel=_PANEL, help="mqtt:// or mqtts://; else the server's, if local."),
    ] = None,
    broker_ca: Annotated[Path | None, typer.Option(rich_help_panel=_PANEL, help="Who signed its certificate.")] = None,
    broker_cert: Annotated[
        Path | None, typer.Option(rich_help_panel=_PANEL, help="A dashboard's certificate; never the server's own.")
    ] = None,
    broker_key: Annotated[Path | None, typer.Option(rich_help_panel=_PANEL, help="Its private key.")] = None,
    prefix: Annotated[str, typer.Option(rich_help_panel=_PANEL, help="The fleet's topic prefix.")] = DEFAULT_PREFIX,
    as_json: AsJson = False,
    server: Server = None,
    token: Token = None,
) -> None:
    """Check server, token, clocks, broker, certificates, manifests and devices; exit status 1 where one fails."""
    with open_session(server, token, as_json=as_json) as session:
        topics = Topics(prefix)
        account = None
        if broker is not None:
            account = BrokerAccount(url=broker, ca_file=broker_ca, cert_file=broker_cert, key_file=broker_key)
        found = []
        for finding in _examine(session.client, topics, account):
            found.append(finding)
            if not as_json:
                _tell(session, finding)
        if as_json:
            session.show({"findings": [asdict(finding) for finding in found]}, lambda: "")
        if any(finding.verdict == "fail" for finding in found):
            raise typer.Exit(1)


def _tell(session: Session, finding: Finding) -> None:
    mark, style = _MARKS[finding.verdict]
    line = Text.assemble((mark, style), f" {finding.what}: {printable.line(finding.text)}")
    session.console.print(line, soft_wrap=True)


def _examine(client: Client, topics: Topics, account: BrokerAccount | None) -> Iterator[Finding]:
    try:
        health = client.health()
        yield from findings.of_server(health, client.url)
        yield findings.of_clock(client.clock_s(), time.time())
    except ClientError as error:
        yield Finding("server", "fail", error.detail)
        return
    yield from _server_tls(client.url)
    try:
        nodes, groups = client.nodes()["nodes"], client.groups()["groups"]
        jobs = client.jobs()["updates"]
    except ClientError as error:
        yield Finding("token", "fail", f"{error.detail}; --token, FAIRLEAD_TOKEN, or data_dir/token on the server")
        return
    yield Finding("token", "ok", "accepted")
    seen = account or _local_broker(health)
    if seen is None:
        text = "not looked at from here: say --broker URL, and for TLS --broker-ca, --broker-cert, --broker-key"
        yield Finding("broker probe", "warn", text)
    else:
        yield from of_broker(seen, topics, groups, named=account is not None)
    yield from findings.of_devices(nodes, groups)
    yield findings.of_rollouts(jobs)


def _local_broker(health: Health) -> BrokerAccount | None:
    """The server's broker, where it is on this machine and asks nobody for a name."""
    url = health["broker"]["url"]
    plain = urlsplit(url).scheme == "mqtt" and is_local(url)
    return BrokerAccount(url=url) if plain and health["broker"]["connected"] else None


def _server_tls(url: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    if parts.scheme != "https":
        return
    try:
        end_s = server_certificate_end_s(parts.hostname or "", parts.port or 443)
    except FleetError as error:
        yield Finding("server TLS", "warn", error.detail)
        return
    yield findings.of_expiry("server TLS", end_s, time.time(), "renew the server's certificate")
