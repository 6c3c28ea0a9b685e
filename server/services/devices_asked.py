"""What operators ask of devices: status, services, logs, rollback, retry and health checks of many."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from fleet_protocol.errors import FleetError, PolicyError
from fleet_protocol.messages import Reply
from server.ports import Clock, Store
from server.services import audit
from server.services.commands import Ask, Commands, Pending
from server.services.node_view import find


class DevicesAsked:
    """Requests to enrolled devices, each answered or ended by the timeout."""

    def __init__(self, store: Store, commands: Commands, *, clock: Clock) -> None:
        self._store = store
        self._commands = commands
        self._clock = clock

    def one(self, device_id: str, ask: Ask) -> Reply:
        """The device's answer; raises PolicyError `unknown-node` or `offline`, or the device's own error."""
        with self._store.read() as reads:
            find(reads, device_id)
        if ask.name in ("rollback", "retry"):
            with self._store.begin() as work:
                now_s = self._clock.now_s()
                detail = ask.package or "all packages"
                audit.record(work, now_s, who=audit.OPERATOR, verb=ask.name, subject=device_id, detail=detail)
        return self._commands.wait(self._commands.send(device_id, ask))

    def many(self, device_ids: Sequence[str], ask: Ask) -> Mapping[str, Reply | FleetError]:
        """Ask all at once; together they take no longer than one timeout."""
        pending: list[Pending] = [self._commands.send(device_id, ask) for device_id in device_ids]
        end_s = time.monotonic() + self._commands.timeout_s
        return {each.device: self._commands.outcome(each, end_s - time.monotonic()) for each in pending}

    def members(self, group: str | None, target_nodes: Sequence[str] | None) -> list[str]:
        """The devices meant by a group, by names, or by neither (all); raises `unknown-group`, `unknown-node`."""
        with self._store.read() as reads:
            if target_nodes is not None:
                missing = sorted(set(target_nodes) - reads.enrolled(target_nodes))
                if missing:
                    raise PolicyError("unknown-node", f"not enrolled: {', '.join(missing[:10])}")
                return list(dict.fromkeys(target_nodes))
            if group is not None and reads.group(group) is None:
                raise PolicyError("unknown-group", f"no group {group}: GET /api/groups lists them")
            return [device.id for device in reads.devices(group)]


def health_of(answer: Reply | FleetError) -> dict[str, Any]:
    """One row of a health check: the device's result, or the code and detail of why there is none."""
    if isinstance(answer, FleetError):
        return {"code": answer.code, "detail": answer.detail}
    return answer.result
