"""The catalogue, verified by the stock `tuf` client in a copy of the trust store's metadata.

1. The client works on a copy. What it has verified when it ends, well or not, is what may be adopted: a document
   that it refused is in no copy, and a root that it accepted is kept even if what follows is missing, as TUF asks.
2. The newest root is judged before anything is adopted; one that is refused is not adopted, nor what it signed.
3. After a refresh, every top-level document must be valid at the trusted time, which may be ahead of the clock
   that the client looked at. If one is not, nothing is adopted.
4. A copy that equals what the store holds is not written.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import TargetFile

from device_agent.trust.fetcher import BASE, RetainedFetcher, Want
from device_agent.trust.refusals import refusal
from device_agent.trust.store import ROOT_FILE, TrustStore
from device_agent.trust.tuf_client import Updater, UpdaterConfig
from fleet_protocol import limits, strict_json
from fleet_protocol.acceptance import CatalogueTarget
from fleet_protocol.catalogue import FLOOR_MEMBER, TargetInfo, parse_floor
from fleet_protocol.errors import FleetError, ProtocolError
from fleet_protocol.ids import shown
from fleet_protocol.schema import from_value
from fleet_protocol.screening import TOP_LEVEL
from fleet_protocol.timestamps import parse_time
from fleet_protocol.topics import Topics

_DELEGATIONS_MOST: Final = 32

Judge = Callable[[bytes], object]
"""Raises ProtocolError for a root that may not be the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Which metadata the device trusts, and until when it is all valid (epoch seconds)."""

    root: int
    timestamp: int
    snapshot: int
    targets: int
    expires_s: float


class VerifiedCatalogue:
    """fleet_protocol.acceptance.Catalogue over a refreshed TUF client."""

    def __init__(self, updater: Updater, fetcher: RetainedFetcher, work: Path) -> None:
        self._updater, self._fetcher, self._work = updater, fetcher, work
        self._signed = {role: _signed(work / f"{role}.json") for role in TOP_LEVEL}
        self._floors = parse_floor(self._signed["targets"].get(FLOOR_MEMBER))

    def file(self, path: str) -> TargetFile | None:
        """TUF's own entry, found through delegations too."""
        with _refusing(self._fetcher, self._work):
            return self._updater.get_targetinfo(path)

    def target(self, path: str) -> CatalogueTarget | None:
        """The entry of this path, or None; raises ProtocolError `schema` where it has no sha256 or bad `custom`."""
        file = self.file(path)
        if file is None:
            return None
        sha256 = file.hashes.get("sha256")
        if sha256 is None:
            raise ProtocolError("schema", f"{shown(path)} has no sha256")
        info = from_value(TargetInfo, file.unrecognized_fields.get("custom"))
        return CatalogueTarget(length=file.length, sha256=sha256, info=info)

    @property
    def floors(self) -> Mapping[str, int]:
        """Every floor that the catalogue sets, by package."""
        return self._floors

    def floor(self, package: str) -> int:
        """The counter below which nothing of the package may be installed; 0 means none."""
        return self._floors.get(package, 0)

    def lists(self, package: str, sha256: str) -> bool:
        """Whether top-level targets list an artifact of the package with this digest."""
        return any(
            row["hashes"].get("sha256") == sha256 and _package(row) == package
            for row in self._signed["targets"]["targets"].values()
        )

    @property
    def versions(self) -> Versions:
        """What was verified."""
        expires_s = min(parse_time(signed["expires"]) for signed in self._signed.values())
        return Versions(expires_s=expires_s, **{role: signed["version"] for role, signed in self._signed.items()})

    def check_time(self, now_s: float) -> None:
        """Rule 3; raises ProtocolError `expired`."""
        for role, signed in self._signed.items():
            if parse_time(signed["expires"]) <= now_s:
                raise ProtocolError("expired", f"{role} expired at {signed['expires']}")


@contextmanager
def refreshed(
    store: TrustStore, want: Want, topics: Topics, *, judge: Judge, now_s: float
) -> Iterator[VerifiedCatalogue]:
    """Refresh the store from retained topics, and adopt what was verified when the block ends.

    Raises TransportError where the broker could not be read, ProtocolError where a document does not verify.
    """
    with store.copied() as work:
        fetcher = RetainedFetcher(want, topics)
        try:
            with _refusing(fetcher, work):
                updater = _updater(work, fetcher)
                updater.refresh()
        except FleetError:
            judge((work / ROOT_FILE).read_bytes())
            store.adopt(_files(work), store.floors)
            raise
        judge((work / ROOT_FILE).read_bytes())
        catalogue = VerifiedCatalogue(updater, fetcher, work)
        catalogue.check_time(now_s)
        try:
            yield catalogue
        finally:
            store.adopt(_files(work), store.floors)


def _updater(work: Path, fetcher: RetainedFetcher) -> Updater:
    config = UpdaterConfig(
        max_root_rotations=limits.ROOT_ROTATIONS,
        max_delegations=_DELEGATIONS_MOST,
        root_max_length=limits.ROOT_SIZE,
        timestamp_max_length=limits.TIMESTAMP_SIZE,
        snapshot_max_length=limits.SNAPSHOT_SIZE,
        targets_max_length=limits.TARGETS_SIZE,
    )
    return Updater(str(work), BASE, fetcher=fetcher, config=config, bootstrap=None)


@contextmanager
def _refusing(fetcher: RetainedFetcher, work: Path) -> Iterator[None]:
    """Turn what the library raises into our errors."""
    try:
        yield
    except (RepositoryError, DownloadError) as error:
        raise refusal(error, fetcher, work / ROOT_FILE) from error


def _package(row: Mapping[str, Any]) -> object:
    custom = row.get("custom")
    return custom.get("package") if isinstance(custom, dict) else None


def _files(work: Path) -> Mapping[str, bytes]:
    """The client's newest metadata; its history of roots is not kept, the chain begins at the newest."""
    return {path.name: path.read_bytes() for path in sorted(work.glob("*.json"))}


def _signed(path: Path) -> Mapping[str, Any]:
    """The signed part of a file that the client has verified."""
    data = path.read_bytes()
    signed: Mapping[str, Any] = strict_json.loads(data, max_size=len(data), max_string=len(data))["signed"]
    return signed
