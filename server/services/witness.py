"""How far our own hand has come, by what the broker still holds. A lost or restored database forgets; devices do not.

Rules, cited by number in the tests:

W1. A document on one of our topics that our own keys signed, and that is not older than ours, was issued by this server
    before it lost its memory. From then on everything on that topic is issued above its number, and what is there now
    at once.
W2. It counts only if it verifies as a device verifies it: the newest root's keys for that role, this fleet, this very
    topic. It counts after its expiry too, for devices remember numbers longer than documents.
W3. A number beyond half of what numbers can be is not followed: a stolen key could leave us no room above it. Devices
    that followed it recover by a new key, as docs/security.md says.
W4. The number is durable before anything is issued above it. The document itself is never taken back into the store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from loguru import logger
from tuf.api.metadata import Timestamp

from firmware_tools.metadata import read
from fleet_protocol import limits
from fleet_protocol.acceptance import open_assignment, open_manifest
from fleet_protocol.errors import FleetError, ProtocolError
from fleet_protocol.topics import ASSIGNMENT, MANIFEST, TIMESTAMP, Address, Topics
from server.ports import Clock, Reads
from server.services import audit
from server.services.catalogue import Catalogue
from server.services.catalogue_state import verify_role
from server.services.manifests import Manifests
from server.services.nodes import Nodes, assigned
from server.services.publication import Change, Publication

SEQUENCE_MOST: Final = limits.JSON_INTEGER // 2
VERSION_MOST: Final = 999_999_999 // 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """A verified document of our own hand."""

    topic: str
    address: Address
    number: int
    snapshot: int = 0
    """The version of the snapshot that a timestamp binds."""


class Witness:
    """Reads what stands on our topics and is not what the store wants there."""

    def __init__(
        self,
        publication: Publication,
        catalogue: Catalogue,
        manifests: Manifests,
        nodes: Nodes,
        topics: Topics,
        *,
        fleet: str,
        clock: Clock,
    ) -> None:
        self._publication = publication
        self._catalogue = catalogue
        self._manifests = manifests
        self._nodes = nodes
        self._topics = topics
        self._fleet = fleet
        self._clock = clock

    @property
    def ready(self) -> bool:
        """Whether there is a root to judge by. Until then nobody can tell what is ours."""
        return self._catalogue.contents is not None

    def reads(self, topic: str) -> bool:
        """Whether documents of this topic carry a number that devices remember."""
        return self._topics.parse(topic).type in (MANIFEST, ASSIGNMENT, TIMESTAMP)

    def hear(self, documents: Mapping[str, bytes]) -> set[str]:
        """Continue above every document that is ours (W1 to W4); returns the topics of those that were.

        Raises TransportError where the database can not be reached; then nothing was heard.
        """
        claims = [claim for topic, data in documents.items() if (claim := self._claim(topic, data)) is not None]
        if not claims:
            return set()
        with self._publication.begin() as change:
            followed = [claim for claim in claims if self._follow(change, claim)]
            self._tell(change, followed)
        for claim in followed:
            self._renew(claim)
        return {claim.topic for claim in followed}

    def _claim(self, topic: str, data: bytes) -> _Claim | None:
        """Rules W2 and W3."""
        try:
            claim = self._verified(topic, data)
        except FleetError:
            return None
        most = VERSION_MOST if claim.address.type is TIMESTAMP else SEQUENCE_MOST
        if max(claim.number, claim.snapshot) > most:
            logger.error("{} carries {} under our own key: it is not followed. Rotate that key", topic, claim.number)
            return None
        return claim

    def _verified(self, topic: str, data: bytes) -> _Claim:
        root, address = self._catalogue.require().root, self._topics.parse(topic)
        if address.type is TIMESTAMP:
            timestamp = read(Timestamp, data)
            verify_role(root, "timestamp", timestamp)
            signed = timestamp.signed
            return _Claim(topic=topic, address=address, number=signed.version, snapshot=signed.snapshot_meta.version)
        role, values = root.roles["deployment"], address.values
        if address.type is MANIFEST:
            manifest = open_manifest(data, role=role, fleet=self._fleet, group=values["group"], now_s=0.0).document
            return _Claim(topic=topic, address=address, number=manifest.sequence)
        if address.type is ASSIGNMENT:
            assignment = open_assignment(data, role=role, fleet=self._fleet, device=values["device"]).document
            return _Claim(topic=topic, address=address, number=assignment.sequence)
        raise ProtocolError("type", f"documents of {topic} carry no number that devices remember")

    def _follow(self, change: Change, claim: _Claim) -> bool:
        """Rule W1; False where ours is newer, so that theirs is an old one that somebody plays again."""
        known, snapshot = self._ours(change.work, claim)
        if claim.number < known and claim.snapshot <= snapshot:
            return False
        if claim.address.type is TIMESTAMP:
            self._catalogue.outgrow(change.work, claim.number, claim.snapshot)
        else:
            change.work.raise_peak(claim.topic, claim.number)
        return True

    def _ours(self, work: Reads, claim: _Claim) -> tuple[int, int]:
        """The number that the document would have to reach, and the snapshot's where there is one."""
        if claim.address.type is TIMESTAMP:
            return self._catalogue.published(work)
        if claim.address.type is ASSIGNMENT:
            newest = assigned(work, claim.topic)
        else:
            group = work.group(claim.address.values["group"])
            newest = 0 if group is None else group.sequence
        return max(newest, work.peak(claim.topic) + 1), 0

    def _renew(self, claim: _Claim) -> None:
        """Issue what is there now above the number. Where that fails, the tick or the next start does it."""
        now_s, kind, values = self._clock.now_s(), claim.address.type, claim.address.values
        try:
            with self._publication.begin() as change:
                if kind is TIMESTAMP:
                    self._catalogue.sign_anew(change, now_s)
                elif kind is ASSIGNMENT:
                    self._nodes.reassign(change, values["device"], now_s)
                elif change.work.group(values["group"]) is not None:
                    self._manifests.reissue(change, values["group"], now_s)
        except FleetError as error:
            logger.error("{} could not be issued above {}: {}", claim.topic, claim.number, error)

    def _tell(self, change: Change, followed: list[_Claim]) -> None:
        if not followed:
            return
        first, more = followed[0], len(followed) - 1
        others = f" and {more} more" if more else ""
        audit.record(
            change.work,
            self._clock.now_s(),
            who=audit.GUARDIAN,
            verb="continue",
            subject=first.topic,
            detail=f"above {first.number}, which our own key signed and the store does not know{others}: "
            "the database was lost or is an older copy, or another server has our keys",
        )
