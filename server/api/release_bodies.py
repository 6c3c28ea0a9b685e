"""What the API takes and answers about releases, the catalogue and artifacts."""

from typing import Any

from pydantic import BaseModel

from server.api.body import Body
from server.services.catalogue_state import Release


class CatalogueBody(Body):
    """Signed TUF metadata as JSON objects: the roots (known ones may be left out) and the targets."""

    root: tuple[dict[str, Any], ...] = ()
    targets: dict[str, Any]


class TargetAnswer(BaseModel):
    """One artifact of a release."""

    path: str
    length: int
    sha256: str


class ReleaseAnswer(BaseModel):
    """A release of the verified catalogue."""

    package: str
    version: str
    counter: int
    kind: str
    kinds: list[str]
    classes: list[str]
    targets: list[TargetAnswer]
    text: str

    @classmethod
    def of(cls, release: Release) -> "ReleaseAnswer":
        """The answer for a release."""
        return cls(
            package=release.package,
            version=release.version,
            counter=release.counter,
            kind=release.kinds[0],
            kinds=list(release.kinds),
            classes=list(release.classes),
            targets=[TargetAnswer(path=t.path, length=t.length, sha256=t.sha256) for t in release.targets],
            text=next((info.text for info in release.infos if info.text), ""),
        )


class ReleasesAnswer(BaseModel):
    """Releases by package, the newest first."""

    releases: list[ReleaseAnswer]


class UploadedAnswer(BaseModel):
    """The versions in force now. `missing` are digests of listed artifacts that are not stored here."""

    root: int
    targets: int
    releases: int
    missing: list[str]


class ArtifactAnswer(BaseModel):
    """A stored artifact."""

    sha256: str
    length: int
