"""Lets the stock TUF client read its repository from retained topics."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tuf.api.exceptions import DownloadHTTPError

from device_agent.trust.tuf_client import FetcherInterface
from fleet_protocol.errors import ProtocolError, TransportError
from fleet_protocol.ids import shown
from fleet_protocol.screening import screen
from fleet_protocol.topics import DELEGATED, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Topics, TopicType

BASE: Final = "retained:///"
_VERSIONED: Final = re.compile(r"([1-9][0-9]*)\.(.+)\.json", re.ASCII)
_KINDS: Final = {"root": ROOT, "snapshot": SNAPSHOT, "targets": TARGETS}

Want = Callable[[str], bytes | None]
"""The retained payload of a topic, or None where the broker holds none; raises TransportError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The document that was fetched last, as far as it was read."""

    role: str
    version: int | None
    """The version that was asked for; None for the timestamp."""
    data: bytes
    signed: Mapping[str, Any]
    """Its `signed` member, unverified."""


class RetainedFetcher(FetcherInterface):
    """Fetches `N.root.json` from `trust/root/N` and so on, and screens every document before TUF sees it."""

    def __init__(self, want: Want, topics: Topics) -> None:
        self._want, self._topics = want, topics
        self.role: str | None = None
        """The role of the document that was asked for last."""
        self.newest: Fetched | None = None

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(BASE)
        self.role, version, topic, kind = self._place(name)
        self.newest = None
        data = self._want(topic)
        if not data:
            if self.role == "root":
                raise DownloadHTTPError(f"{topic} is not retained: the trusted root is the newest", 404)
            raise TransportError("absent", f"{topic} is not retained")
        signed = screen(data, self.role, max_size=kind.max_size)
        self.newest = Fetched(role=self.role, version=version, data=data, signed=signed)
        return iter([data])

    def _place(self, name: str) -> tuple[str, int | None, str, TopicType]:
        if name == "timestamp.json":
            return "timestamp", None, self._topics.of(TIMESTAMP), TIMESTAMP
        found = _VERSIONED.fullmatch(name)
        if found is None:
            raise ProtocolError("metadata", f"{shown(name)} has no topic; snapshots must be consistent")
        version, role = int(found[1]), found[2]
        kind = _KINDS.get(role)
        if kind is not None:
            return role, version, self._topics.of(kind, version=version), kind
        return role, version, self._topics.of(DELEGATED, role=role, version=version), DELEGATED
