"""The record as it stands in the journal."""

from typing import Any, Final

from device_agent.core.codec import from_json, to_json
from device_agent.core.record import Record
from fleet_protocol.messages import STAGES

_UNKNOWN: Final = "rolling_back"
"""What a stage that this agent does not know resumes as (rule R19): it can only undo."""


def to_memory(record: Record) -> Any:
    """The JSON value that `from_memory` reads back as an equal record."""
    return to_json(record)


def from_memory(value: Any) -> Record:
    """The record of a JSON value; raises ProtocolError `schema` where it is none.

    A stage of another agent version is read as `rolling_back`, which is what the unknown resumes as.
    """
    if isinstance(value, dict) and isinstance(value.get("stage"), str) and value["stage"] not in STAGES:
        value = value | {"stage": _UNKNOWN}
    return from_json(Record, value)
