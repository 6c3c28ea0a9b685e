"""The release engineer's directory of one fleet, and what of it is already signed.

offline/     private root and targets keys; never leaves the machines of their holders
online/      private snapshot, timestamp and deployment keys; goes to the server
metadata/    signed: <N>.root.json from 1 on, <N>.targets.json
draft/       unsigned or partly signed: root.json, targets.json
artifacts/   the bytes, by their sha256
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tuf.api.metadata import Metadata, Targets

from firmware_tools.files import write_atomically
from firmware_tools.metadata import naming, read_targets
from firmware_tools.root_chain import RootDocument, verify_chain
from fleet_protocol.errors import PolicyError, ProtocolError

_ROOT_NAME: Final = re.compile(r"([1-9][0-9]{0,8})\.root\.json")
_TARGETS_NAME: Final = re.compile(r"([1-9][0-9]{0,8})\.targets\.json")


@dataclass(frozen=True, slots=True)
class Fleet:
    """Names the places in a fleet's directory and reads what is signed there. Holds no state."""

    directory: Path

    def known(self) -> Self:
        """Itself, where it is a fleet's directory. Raises PolicyError `setup` where it is none."""
        if not self.metadata.is_dir() and not self.draft.is_dir():
            detail = f"{self.directory} is not a fleet directory; make one with `fairlead-firmware init`"
            raise PolicyError("setup", detail)
        return self

    @property
    def offline(self) -> Path:
        """Private root and targets keys."""
        return self.directory / "offline"

    @property
    def online(self) -> Path:
        """Private keys of the server."""
        return self.directory / "online"

    @property
    def metadata(self) -> Path:
        """Signed metadata."""
        return self.directory / "metadata"

    @property
    def draft(self) -> Path:
        """Metadata that still needs signatures."""
        return self.directory / "draft"

    @property
    def artifacts(self) -> Path:
        """Artifacts by their sha256."""
        return self.directory / "artifacts"

    def roots(self) -> tuple[RootDocument, ...]:
        """The chain of signed roots, verified, oldest first; empty before the first is signed.

        Raises ProtocolError where the chain does not verify.
        """
        found = _versions(self.metadata, _ROOT_NAME)
        if not found:
            return ()
        if sorted(found) != list(range(1, len(found) + 1)):
            raise ProtocolError("root", f"{self.metadata} does not hold roots 1 to {max(found)} without a gap")
        with naming(self.metadata):
            return verify_chain([found[version].read_bytes() for version in sorted(found)])

    def root(self) -> RootDocument:
        """The newest signed root. Raises PolicyError `setup` where there is none yet."""
        roots = self.roots()
        if not roots:
            raise PolicyError("setup", f"{self.known().directory}: no signed root yet: sign it first")
        return roots[-1]

    def targets(self) -> Metadata[Targets] | None:
        """The newest signed catalogue, or None before the first.

        It verifies under the newest root, or, until the holders of rotated keys have signed it anew, under an
        older root of the chain. Raises PolicyError `catalogue` where it verifies under none.
        """
        data = self.targets_bytes()
        if data is None:
            return None
        with naming(self.metadata):
            metadata = read_targets(data)
        if not any(root.accepts_targets(metadata) for root in reversed(self.roots())):
            detail = f"the signed catalogue in {self.metadata} does not verify: it was altered; restore it from a copy"
            raise PolicyError("catalogue", detail)
        return metadata

    def targets_bytes(self) -> bytes | None:
        """The bytes of the newest signed catalogue, or None before the first."""
        found = _versions(self.metadata, _TARGETS_NAME)
        return found[max(found)].read_bytes() if found else None

    def artifact(self, sha256: str) -> Path:
        """Where the artifact with this digest is, or would be."""
        return self.artifacts / sha256

    def classes(self) -> frozenset[str]:
        """The device classes that the engineer named for this fleet; empty means that any will do."""
        path = self.directory / "classes"
        return frozenset(path.read_text("utf-8").split()) if path.is_file() else frozenset()

    def publish(self, name: str, version: int, data: bytes) -> Path:
        """Put fully signed metadata in its place, `<version>.<name>.json`; another one there is a conflict."""
        path = self.metadata / f"{version}.{name}.json"
        if path.exists() and path.read_bytes() != data:
            raise PolicyError("conflict", f"{path} exists already with other content")
        write_atomically(path, data)
        return path


def _versions(directory: Path, pattern: re.Pattern[str]) -> dict[int, Path]:
    if not directory.is_dir():
        return {}
    matches = ((pattern.fullmatch(path.name), path) for path in directory.iterdir())
    return {int(match[1]): path for match, path in matches if match is not None}
