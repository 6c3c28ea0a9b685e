"""Enrols devices and tells them their group.

Rules, cited by number in the tests:

D1. A device's id belongs to the key that enrolled it first; another key is a conflict, the same key changes
    nothing but the class, which the device knows best. Its group is changed by moving it.
D2. A device is in exactly one group; its signed assignment is stored in the transaction that moves it.
D3. The sequence of a device's assignments always rises, over its removal and enrolment too, and so does the counter
    below which reports under its key are replays.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from securesystemslib.signer._key import SSlibKey

from fleet_protocol import envelope
from fleet_protocol.envelope import ASSIGNMENT_TYPE, key_set
from fleet_protocol.errors import PolicyError, ProtocolError
from fleet_protocol.limits import ASSIGNMENT_SIZE
from fleet_protocol.messages import Assignment
from fleet_protocol.payload import to_payload
from fleet_protocol.schema import from_payload
from fleet_protocol.timestamps import format_time
from fleet_protocol.topics import ASSIGNMENT, Topics
from server.domain.fleet import Device, Group
from server.ports import Clock, Reads
from server.services import audit
from server.services.catalogue import Catalogue
from server.services.keyring import Keyring
from server.services.manifests import Manifests, sign_document
from server.services.publication import Change, Publication
from server.services.sequences import following, lowest


class Nodes:
    """Enrolment and groups."""

    def __init__(
        self,
        publication: Publication,
        catalogue: Catalogue,
        manifests: Manifests,
        keyring: Keyring,
        topics: Topics,
        *,
        fleet: str,
        clock: Clock,
    ) -> None:
        self._publication = publication
        self._catalogue = catalogue
        self._manifests = manifests
        self._keyring = keyring
        self._topics = topics
        self._fleet = fleet
        self._clock = clock

    def register(self, device_id: str, group: str, device_class: str, public_key: Mapping[str, Any]) -> bool:
        """Enrol the device (D1) and make its group where there is none; whether it is new.

        Raises PolicyError `conflict` for another key under a known id, `bad-request` for a key of another kind,
        `setup` where there is no catalogue yet.
        """
        key = _key(public_key)
        now_s = self._clock.now_s()
        with self._publication.begin() as change:
            known = change.work.device(device_id)
            if known is not None:
                if known.key_id != key.keyid:
                    raise PolicyError("conflict", f"{device_id} is enrolled with another key ({known.key_id[:12]}…)")
                if known.device_class != device_class:
                    change.work.put_device(replace(known, device_class=device_class))
                return False
            device = Device(
                id=device_id,
                group=group,
                device_class=device_class,
                key_id=key.keyid,
                public_key=key.to_dict(),
                enrolled_s=now_s,
                report_counter=change.work.peak(reports_of(key.keyid)),
            )
            self._assign(change, device, now_s)
            detail = f"group {group}, class {device_class}, key {key.keyid[:12]}"
            audit.record(change.work, now_s, who=audit.OPERATOR, verb="register", subject=device_id, detail=detail)
        return True

    def move(self, device_id: str, group: str) -> None:
        """Put the device into the group, which is made where there is none; its own group again changes nothing."""
        now_s = self._clock.now_s()
        with self._publication.begin() as change:
            device = change.work.device(device_id)
            if device is None:
                raise PolicyError("unknown-node", f"no device {device_id} is enrolled: GET /api/nodes lists them")
            if device.group == group:
                return
            self._assign(change, replace(device, group=group), now_s)
            detail = f"from {device.group} to {group}"
            audit.record(change.work, now_s, who=audit.OPERATOR, verb="move", subject=device_id, detail=detail)

    def refresh(self) -> int:
        """Issue every assignment anew whose sequence has become too low; how many there were."""
        now_s, count = self._clock.now_s(), 0
        if self._catalogue.contents is None:
            return 0
        with self._publication.begin() as change:
            for device in change.work.devices():
                topic = self._topics.of(ASSIGNMENT, device=device.id)
                if assigned(change.work, topic) <= lowest(change.work, topic):
                    self._assign(change, device, now_s)
                    count += 1
        return count

    def reassign(self, change: Change, device_id: str, now_s: float) -> None:
        """Issue the device's assignment anew; nothing where it is not enrolled."""
        device = change.work.device(device_id)
        if device is not None:
            self._assign(change, device, now_s)

    def trusted_root(self) -> bytes:
        """The newest root, with which a device starts to trust this fleet."""
        return self._catalogue.require().root.data

    def _assign(self, change: Change, device: Device, now_s: float) -> None:
        """Rules D2 and D3."""
        contents = self._catalogue.require()
        topic = self._topics.of(ASSIGNMENT, device=device.id)
        assignment = Assignment(
            fleet=self._fleet,
            device=device.id,
            group=device.group,
            sequence=following(change.work, topic, assigned(change.work, topic)),
            issued=format_time(now_s),
        )
        role = contents.root.roles["deployment"]
        change.work.put_device(device)
        change.put_document(topic, sign_document(to_payload(assignment), ASSIGNMENT_TYPE, role, self._keyring))
        if change.work.group(device.group) is None:
            change.work.put_group(Group(name=device.group))
            self._manifests.reissue(change, device.group, now_s)


def reports_of(key_id: str) -> str:
    """The peak of the counters of the reports that a removed device signed with this key."""
    return f"reports {key_id}"


def assigned(work: Reads, topic: str) -> int:
    """The sequence of the stored assignment; 0 before the first."""
    data = work.document(topic)
    if data is None:
        return 0
    payload = envelope.decode(data, max_size=ASSIGNMENT_SIZE).payload
    return from_payload(Assignment, payload, max_size=ASSIGNMENT_SIZE).sequence


def _key(public_key: Mapping[str, Any]) -> SSlibKey:
    """The device's key under the id that everybody computes for it; raises PolicyError `bad-request`."""
    try:
        (key,) = key_set(1, {"device": public_key}).keys.values()
    except ProtocolError as error:
        raise PolicyError("bad-request", f"public_key: {error.detail}") from None
    if not isinstance(key, SSlibKey) or (key.keytype, key.scheme) != ("ed25519", "ed25519"):
        raise PolicyError(
            "bad-request", "public_key is not an ed25519 key in TUF form: `fairlead-agent init` prints one"
        )
    return SSlibKey.from_crypto(key._crypto_key())
