"""`sign`: put a document of this device into an envelope signed by its key. Imports no trust store."""

from collections.abc import Mapping
from typing import Any, Final

from device_agent.trust import device_key
from device_agent.worker.context import WorkerContext
from fleet_protocol import limits, strict_json
from fleet_protocol.dsse import REPORT_TYPE
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown

_TYPES: Final = frozenset({REPORT_TYPE})


def run(args: Mapping[str, Any], context: WorkerContext) -> dict[str, Any]:
    """`{"payload", "type"}` -> `{"envelope"}`. Raises PolicyError `keys`, ProtocolError `type` or `size`."""
    if args["type"] not in _TYPES:
        raise ProtocolError("type", f"a device does not sign {shown(args['type'])}")
    signed = device_key.load(context.settings.state_dir).sign(strict_json.dumps(args["payload"]), args["type"])
    data = signed.encode()
    if len(data) > limits.REPORT_SIZE:
        raise ProtocolError("size", f"a report of {len(data)} bytes, at most {limits.REPORT_SIZE} are allowed")
    return {"envelope": data.decode("utf-8")}
