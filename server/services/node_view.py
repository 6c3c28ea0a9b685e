"""What people are shown of a device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet_protocol import limits, strict_json
from fleet_protocol.errors import PolicyError, ProtocolError
from server.domain.fleet import AttemptSeen, Device
from server.ports import Reads

_SHOWN: Final = ("telemetry", "health")
ATTEMPTS_MOST: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A device with its newest readings."""

    device: Device
    readings: Mapping[str, Mapping[str, Any]]
    """By kind, `telemetry` and `health`; unsigned, as the device sent them."""


def view(work: Reads, device: Device) -> NodeView:
    """The device and its readings; one that is not a JSON object is left out."""
    readings = {}
    for reading in work.readings(device.id):
        if reading.kind in _SHOWN:
            value = _parsed(reading.payload)
            if value is not None:
                readings[reading.kind] = value
    return NodeView(device=device, readings=readings)


def find(work: Reads, device_id: str) -> Device:
    """The enrolled device, or PolicyError `unknown-node`."""
    device = work.device(device_id)
    if device is None:
        raise PolicyError("unknown-node", f"no device {device_id} is enrolled: GET /api/nodes lists them")
    return device


def attempts(work: Reads, device: Device) -> Sequence[AttemptSeen]:
    """What the device reported about its group's deployments and about those it has installed, the newest first."""
    ids = {rollout.id for rollout in work.rollouts(device.group)}
    ids |= {item.deployment for item in device.installed if item.deployment is not None}
    found = [attempt for name in sorted(ids) if (attempt := work.attempt(name, device.id)) is not None]
    return sorted(found, key=lambda attempt: attempt.at_s, reverse=True)[:ATTEMPTS_MOST]


def _parsed(payload: bytes) -> Mapping[str, Any] | None:
    try:
        value = strict_json.loads(payload, max_size=limits.HEALTH_SIZE)
    except ProtocolError:
        return None
    return value if isinstance(value, dict) else None
