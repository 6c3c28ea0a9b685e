"""The device's own verifier, run by the server before anything is published (row S2 of the attack list)."""

from collections.abc import Mapping
from dataclasses import dataclass

from fleet_protocol.acceptance import CatalogueTarget, check_deployment, open_manifest
from fleet_protocol.errors import ProtocolError
from server.services.catalogue_state import Contents


@dataclass(frozen=True, slots=True)
class ListedCatalogue:
    """The verified catalogue as fleet_protocol.acceptance reads it."""

    entries: Mapping[str, CatalogueTarget]
    floors: Mapping[str, int]

    @classmethod
    def of(cls, contents: Contents) -> "ListedCatalogue":
        """Every target of every release."""
        entries = {
            target.path: CatalogueTarget(length=target.length, sha256=target.sha256, info=info)
            for release in contents.releases
            for target, info in zip(release.targets, release.infos, strict=True)
        }
        return cls(entries, contents.floors)

    def target(self, path: str) -> CatalogueTarget | None:
        """See fleet_protocol.acceptance.Catalogue."""
        return self.entries.get(path)

    def floor(self, package: str) -> int:
        """See fleet_protocol.acceptance.Catalogue."""
        return self.floors.get(package, 0)

    def lists(self, package: str, sha256: str) -> bool:
        """See fleet_protocol.acceptance.Catalogue."""
        return any(entry.sha256 == sha256 and entry.info.package == package for entry in self.entries.values())


def accept(document: bytes, contents: Contents, *, fleet: str, group: str, now_s: float) -> None:
    """Return only where a device of any class would accept the manifest and each of its deployments.

    Raises ProtocolError with the code that the device would report.
    """
    opened = open_manifest(document, role=contents.root.roles["deployment"], fleet=fleet, group=group, now_s=now_s)
    catalogue = ListedCatalogue.of(contents)
    for deployment in opened.document.deployments:
        try:
            check_deployment(deployment, catalogue)
        except ProtocolError as error:
            raise ProtocolError(error.code, f"{deployment.package} {deployment.version}: {error.detail}") from None
