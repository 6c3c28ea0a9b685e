"""What people are shown of a device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet_protocol import limits, strict_json
from fleet_protocol.errors import PolicyError, ProtocolError
from server.domain.fleet import AttemptSeen, Device
from server.ports import Reading, Reads

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
    return _view(device, work.readings(device.id))


def views(work: Reads, group: str | None) -> list[NodeView]:
    """Every device, or a group's, each as `view` shows it, in two questions to the database."""
    found: dict[str, list[Reading]] = {}
    for reading in work.readings_of(group, _SHOWN):
        found.setdefault(reading.device, []).append(reading)
    return [_view(device, found.get(device.id, ())) for device in work.devices(group)]


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


def _view(device: Device, readings: Sequence[Reading]) -> NodeView:
    parsed = {reading.kind: _parsed(reading.payload) for reading in readings if reading.kind in _SHOWN}
    return NodeView(device=device, readings={kind: value for kind, value in parsed.items() if value is not None})


def _parsed(payload: bytes) -> Mapping[str, Any] | None:
    try:
        value = strict_json.loads(payload, max_size=limits.HEALTH_SIZE)
    except ProtocolError:
        return None
    return value if isinstance(value, dict) else None
