"""`command`: judge a spooled command and remember that it was carried out.

The id is persisted before the command is handed on: a command lost to a power cut is asked for again by a person,
one that is carried out twice may do harm.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from device_agent.trust.desk import Desk, read_document
from device_agent.trust.store import TrustStore
from device_agent.worker.context import WorkerContext
from fleet_protocol import limits
from fleet_protocol.acceptance import Opened, open_command
from fleet_protocol.envelope import KeySet
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import Command
from fleet_protocol.timestamps import parse_time


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"path"}` -> `{"id", "name", "package", "service", "lines"}`, at most once per command. Raises FleetError."""
    data = read_document(args["path"], limits.COMMAND_SIZE)
    with TrustStore.opened(context.settings.state_dir) as store:
        desk = Desk(store, context.settings, context.want, context.clock)
        opened = desk.proven(lambda role: _open(desk, data, role))
        command = opened.document
        expires_s = int(parse_time(command.expires))
        done = desk.floors.commands.with_done(command.id, expires_s, opened.mark.voters)
        desk.save(replace(desk.floors, commands=done))
    return {name: getattr(command, name) for name in ("id", "name", "package", "service", "lines")}


def _open(desk: Desk, data: bytes, role: KeySet) -> Opened[Command]:
    settings, commands = desk.settings, desk.floors.commands
    opened = open_command(
        data, role=role, fleet=settings.fleet, device=settings.device, now_s=desk.now_s, done=commands.done
    )
    if parse_time(opened.document.expires) <= commands.floor_s:
        raise ProtocolError("command", "as old as commands that are forgotten already")
    return opened
