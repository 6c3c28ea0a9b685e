"""What a worker may say: the resident's side of the protocol, for it trusts no worker to keep to it.

A worker that handles strangers' bytes may have been taken over by them. What it claims decides what this device does
next; it must not decide whether the resident goes on running.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from device_agent.core.codec import from_json
from device_agent.core.plan import Plan
from device_agent.worker import LINE_SIZE
from fleet_protocol import strict_json
from fleet_protocol.checks import check_range
from fleet_protocol.errors import CODES, ProtocolError
from fleet_protocol.ids import check_id, shown
from fleet_protocol.messages import CommandName

Answer = Mapping[str, Any]
_DETAIL_MOST: Final = 1_000
_RETRY_MOST_S: Final = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """Result of `assignment`."""

    group: str
    sequence: int

    def __post_init__(self) -> None:
        check_id(self.group, "group")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """Result of `command`."""

    id: str
    name: CommandName
    package: str | None
    service: str | None
    lines: int

    def __post_init__(self) -> None:
        for what, name in (("command", self.id), ("package", self.package), ("service", self.service)):
            if name is not None:
                check_id(name, what)
        check_range(self.lines, 0, 10_000, "lines")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Result of `sign`."""

    envelope: str


RESULTS: Final[Mapping[str, type]] = {"assignment": Assigned, "command": Ordered, "manifest": Plan, "sign": Signed}
"""The forms of results that the resident looks into. Others are empty, or come from a worker with its own identity."""


def read(line: bytes) -> Mapping[str, Any]:
    """One line as strict JSON, so that the journal can hold whatever is in it; raises ProtocolError."""
    message = strict_json.loads(line, max_size=LINE_SIZE)
    if not isinstance(message, dict):
        raise ProtocolError("schema", "a line of the worker is no object")
    return message


def share(value: object) -> float:
    """How much is done, 0 to 1; raises ProtocolError."""
    return _number(value, 1.0, "progress")


def answer(op: str, message: Mapping[str, Any]) -> Answer:
    """The answer to `op` that the message is, `{"ok", "result"}` or `{"ok", "code", "detail", "retry_after_s"}`.

    Raises ProtocolError.
    """
    result, code, detail = message.get("result"), message.get("code"), message.get("detail")
    if message.get("ok") is True and isinstance(result, dict):
        if op in RESULTS:
            from_json(RESULTS[op], result)
        return {"ok": True, "result": result}
    if message.get("ok") is False and isinstance(code, str) and code in CODES and isinstance(detail, str):
        wish = message.get("retry_after_s")
        retry_after_s = None if wish is None else _number(wish, _RETRY_MOST_S, "retry_after_s")
        return {"ok": False, "code": code, "detail": detail[:_DETAIL_MOST], "retry_after_s": retry_after_s}
    raise ProtocolError("schema", "the worker's answer is of no known form")


def _number(value: object, most: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise ProtocolError("schema", f"{what} {shown(value)} is not a number from 0 to {most:g}")
    return float(value)
