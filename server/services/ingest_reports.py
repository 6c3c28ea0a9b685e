"""Signed reports: from envelopes to what the server knows of a device.

1. A report counts only if it verifies under the key with which its device was enrolled, and names the fleet and the
   device on whose topic it stood.
2. Its counter is above that of every report taken before, over restarts of both sides: a replay changes nothing.
3. Signatures are verified before the transaction, so that nobody waits for the arithmetic; rule 2 is checked inside.
4. What it says about an attempt is kept only for a deployment of this server and its own package, so that a device
   can not fill the database with invented ones.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fleet_protocol.acceptance import open_report
from fleet_protocol.envelope import KeySet, key_set
from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import Report
from server.domain.fleet import AttemptSeen, Device
from server.domain.rollout import Rollout

_KEYS_MOST: Final = 20_000


class ReportDesk:
    """Opens reports; keeps the parsed keys of the devices that reported lately."""

    def __init__(self, fleet: str) -> None:
        self._fleet = fleet
        self._keys: OrderedDict[str, tuple[Mapping[str, object], KeySet]] = OrderedDict()

    def open(self, payload: bytes, device: Device) -> Report:
        """The report by rule 1, or a ProtocolError."""
        return open_report(payload, key=self._key(device), fleet=self._fleet, device=device.id).document

    def _key(self, device: Device) -> KeySet:
        known = self._keys.get(device.id)
        if known is not None and known[0] == device.public_key:
            self._keys.move_to_end(device.id)
            return known[1]
        key = key_set(1, {device.key_id: device.public_key})
        self._keys[device.id] = (device.public_key, key)
        if len(self._keys) > _KEYS_MOST:
            self._keys.popitem(last=False)
        return key


def told(device: Device, report: Report) -> Device:
    """What is known of the device after the report; raises ProtocolError `replay` by rule 2."""
    if report.counter <= device.report_counter:
        raise ProtocolError("replay", f"report {report.counter} of {device.id} after {device.report_counter}")
    attempt = report.attempt
    stage = device.stage or "idle"
    if attempt is not None:
        stage = attempt.stage if attempt.outcome is None else "idle"
    return replace(
        device,
        boot=report.boot,
        report_counter=report.counter,
        sequence=report.sequence,
        root=report.root,
        stage=stage,
        why=report.why,
        installed=report.installed,
        attack=report.attack or device.attack,
        attacks=report.attacks,
    )


def new_attacks(device: Device, report: Report) -> Mapping[str, int]:
    """How many attacks the device counted since its last report that was taken, by code.

    By its own counters, so that those of a report that was lost on its way are told by the next. A counter that is
    lower than before began anew.
    """
    before = device.attacks
    more = {code: number - before.get(code, 0) for code, number in report.attacks.items()}
    return {code: report.attacks[code] if number < 0 else number for code, number in more.items() if number}


def rebooted(device: Device, report: Report) -> bool:
    """Whether the device has started anew since its last report."""
    return device.boot is not None and device.boot != report.boot


def attempt_seen(report: Report, rollout: Rollout | None, at_s: float) -> AttemptSeen | None:
    """What the report says of an attempt, by rule 4."""
    attempt = report.attempt
    if attempt is None or rollout is None or rollout.package != attempt.package:
        return None
    return AttemptSeen(
        deployment=attempt.deployment,
        device=report.device,
        version=attempt.version,
        number=attempt.number,
        stage=attempt.stage,
        outcome=attempt.outcome,
        code=attempt.code,
        detail=attempt.detail,
        at_s=at_s,
    )
