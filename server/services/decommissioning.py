"""Removes a device for good.

Rules, cited by number in the tests:

X1. Its key, its reports and its readings are forgotten: what it sends from then on is refused as a stranger's.
X2. Its retained topics are emptied, its assignment first of all.
X3. Rollouts in which it took part go on as if it had never been in the group. What an operator had excused of it by
    resuming goes with it, so that it excuses nobody else.
X4. If it is enrolled again, its numbers go on where they were (D3): nothing that is recorded of it can be replayed.
"""

from collections.abc import Sequence
from dataclasses import replace

from fleet_protocol.errors import PolicyError
from fleet_protocol.topics import ASSIGNMENT, AVAILABILITY, STATE, Topics
from server.domain.fleet import Device
from server.domain.rollout import Observations, Rollout
from server.ports import Clock, Work
from server.services import audit
from server.services.catalogue import Catalogue
from server.services.evidence import Evidence
from server.services.node_view import find
from server.services.nodes import assigned, reports_of
from server.services.publication import Publication
from server.services.rollout_tick import Observe


class Decommissioning:
    """Carries out `DELETE /api/nodes/{id}`."""

    def __init__(self, publication: Publication, catalogue: Catalogue, topics: Topics, *, clock: Clock) -> None:
        self._publication = publication
        self._catalogue = catalogue
        self._topics = topics
        self._clock = clock

    def remove(self, device_id: str) -> None:
        """Forget the device (X1 to X4), or raise PolicyError `unknown-node`."""
        now_s = self._clock.now_s()
        with self._publication.begin() as change:
            device = find(change.work, device_id)
            # Evidence of its own: what the others' would remember of a transaction that fails never was.
            observe = Evidence(self._catalogue).observe
            before = _seen(change.work, device, observe, now_s)
            self._keep_numbers(change.work, device)
            change.work.remove_device(device_id)
            for kind in (ASSIGNMENT, AVAILABILITY, STATE):
                change.put_document(self._topics.of(kind, device=device_id), None)
            _take_back_excuses(change.work, before, observe, now_s)
            detail = f"group {device.group}, class {device.device_class}, key {device.key_id[:12]}"
            audit.record(change.work, now_s, who=audit.OPERATOR, verb="remove", subject=device_id, detail=detail)

    def _keep_numbers(self, work: Work, device: Device) -> None:
        """Rule X4."""
        topic = self._topics.of(ASSIGNMENT, device=device.id)
        work.raise_peak(topic, assigned(work, topic))
        work.raise_peak(reports_of(device.key_id), device.report_counter)


def _seen(work: Work, device: Device, observe: Observe, now_s: float) -> Sequence[tuple[Rollout, Observations]]:
    """The evidence for each rollout that goes on in the device's group; one that can not be read has none."""
    found = []
    for name in work.moving():
        try:
            rollout = work.rollout(name)
            if rollout is not None and rollout.group == device.group:
                found.append((rollout, observe(work, rollout, now_s)))
        except PolicyError:
            continue
    return found


def _take_back_excuses(
    work: Work, before: Sequence[tuple[Rollout, Observations]], observe: Observe, now_s: float
) -> None:
    """Rule X3."""
    for rollout, then in before:
        now = observe(work, rollout, now_s)
        failed, silent = then.treated.failed - now.treated.failed, then.treated.silent - now.treated.silent
        changed = replace(
            rollout,
            excused_failures=max(0, rollout.excused_failures - failed),
            excused_silent=max(0, rollout.excused_silent - silent),
        )
        if changed != rollout:
            work.put_rollout(changed)
