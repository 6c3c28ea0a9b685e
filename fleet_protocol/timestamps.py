"""Times in signed documents: RFC 3339, UTC, whole seconds, nothing else."""

import math
import re
from datetime import UTC, datetime
from typing import Final

from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown

_FORM: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_PARTS: Final = re.compile(r"[0-9]+")


def parse_time(text: str) -> float:
    """Epoch seconds of `YYYY-MM-DDTHH:MM:SSZ`, or ProtocolError `schema`."""
    if _FORM.fullmatch(text) is None:
        raise ProtocolError("schema", f"time {shown(text)} is not of the form YYYY-MM-DDTHH:MM:SSZ")
    year, month, day, hour, minute, second = (int(part) for part in _PARTS.findall(text))
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        raise ProtocolError("schema", f"time {shown(text)} does not exist") from None


def format_time(epoch_s: float) -> str:
    """`YYYY-MM-DDTHH:MM:SSZ` of epoch seconds, rounded down; the inverse of `parse_time`."""
    return datetime.fromtimestamp(math.floor(epoch_s), UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
