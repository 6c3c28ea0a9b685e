"""Takes a new catalogue from the offline side, and brings every group's manifest in step with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleet_protocol.errors import PolicyError, ProtocolError
from server.ports import Clock
from server.services import audit
from server.services.artifacts import Artifacts
from server.services.catalogue import Catalogue
from server.services.publication import Publication


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """What is in force now."""

    root: int
    targets: int
    releases: int
    missing: tuple[str, ...]
    """Digests of listed artifacts that are not stored here; they need a `package_url`, or an upload."""


class Uploading:
    """The use case behind `POST /api/catalogue`."""

    def __init__(
        self,
        publication: Publication,
        catalogue: Catalogue,
        artifacts: Artifacts,
        *,
        refresh: Callable[[], None],
        clock: Clock,
    ) -> None:
        """`refresh` brings all manifests in step; it is called after the catalogue is in force."""
        self._publication = publication
        self._catalogue = catalogue
        self._artifacts = artifacts
        self._refresh = refresh
        self._clock = clock

    def upload(self, roots: Sequence[bytes], targets: bytes) -> Uploaded:
        """Put the catalogue in force; raises PolicyError `catalogue` (with the reason), `conflict` or `keys`."""
        now_s = self._clock.now_s()
        try:
            with self._publication.begin() as change:
                contents = self._catalogue.offer(change, roots, targets, now_s)
                detail = f"root {contents.root.version}, targets {contents.targets_version}"
                audit.record(
                    change.work, now_s, who=audit.OPERATOR, verb="catalogue", subject="catalogue", detail=detail
                )
        except ProtocolError as error:
            raise PolicyError("catalogue", f"{error.code}: {error.detail}") from None
        self._refresh()
        digests = {target.sha256: target.length for release in contents.releases for target in release.targets}
        return Uploaded(
            root=contents.root.version,
            targets=contents.targets_version,
            releases=len(contents.releases),
            missing=tuple(sorted(name for name, length in digests.items() if self._artifacts.size(name) != length)),
        )
