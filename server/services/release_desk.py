"""Small fleets and demos only (`signing = "server"`): the server holds the offline keys too, and signs releases.

Whoever breaks into such a server can sign anything. It is said in the log at every start and in GET /health.
"""

import tempfile
import threading
from pathlib import Path
from typing import Final

from loguru import logger

from firmware_tools import catalogue as editing
from firmware_tools import ceremony, description, packing, rotation, signing
from firmware_tools.description import Description
from firmware_tools.fleet import Fleet
from firmware_tools.rotation import KeyChange
from fleet_protocol.catalogue import TargetInfo
from fleet_protocol.errors import FleetError, PolicyError
from server.ports import Clock
from server.services.catalogue import Catalogue
from server.services.uploading import Uploaded, Uploading

_RENEW_S: Final = 21 * 86_400


class ReleaseDesk:
    """The offline side inside the server: `<data>/keys` is a fleet directory of firmware_tools."""

    def __init__(
        self, directory: Path, catalogue: Catalogue, uploading: Uploading, *, fleet: str, clock: Clock
    ) -> None:
        self._fleet = Fleet(directory)
        self._catalogue = catalogue
        self._uploading = uploading
        self._name = fleet
        self._clock = clock
        self._lock = threading.Lock()

    def start(self, artifacts_directory: Path) -> None:
        """Make all keys and an empty catalogue at the first start, and put what is signed in force."""
        logger.warning(
            "signing = server: this server holds ALL keys of fleet {}, root and targets included, in {}. "
            "Whoever breaks in can sign any release. For demos and small fleets only.",
            self._name,
            self._fleet.directory,
        )
        with self._lock:
            if not self._fleet.roots():
                ceremony.init(self._fleet.directory, fleet=self._name, now_s=self._clock.now_s())
            if not self._fleet.artifacts.exists():
                self._fleet.artifacts.symlink_to(artifacts_directory.resolve(), target_is_directory=True)
            if not self._in_force():
                self._upload()

    def add(self, artifact: Path, sha256: str, info: TargetInfo) -> Uploaded:
        """Measure the stored artifact, list it, sign the catalogue and put it in force.

        Raises PolicyError `bad-request` where the bytes are not what `info` says, `conflict` where the path or counter
        is taken.
        """
        length, _ = packing.digest(artifact)
        said = Description(path=description.target_path(info), length=length, sha256=sha256, custom=info)
        with self._lock, tempfile.TemporaryDirectory(dir=self._fleet.directory) as folder:
            place = Path(folder) / sha256
            place.hardlink_to(artifact)
            description.write(place, said)
            now_s = self._clock.now_s()
            try:
                editing.add(self._fleet, place, now_s=now_s)
                self._sign("targets", now_s)
            except FleetError:
                (self._fleet.draft / "targets.json").unlink(missing_ok=True)
                raise
            return self._upload()

    def renew(self) -> bool:
        """Sign root and catalogue anew where they expire within three weeks; whether anything was."""
        now_s = self._clock.now_s()
        with self._lock:
            root, targets = self._fleet.root().metadata.signed, self._fleet.targets()
            due = [root.expires.timestamp() - now_s < _RENEW_S]
            due.append(targets is not None and targets.signed.expires.timestamp() - now_s < _RENEW_S)
            if due[0]:
                rotation.rotate(self._fleet, KeyChange(), now_s=now_s)
                self._sign("root", now_s)
            if due[1]:
                editing.renew(self._fleet, now_s=now_s)
                self._sign("targets", now_s)
            if any(due):
                self._upload()
            return any(due)

    def _sign(self, role: str, now_s: float) -> None:
        keys = sorted(self._fleet.offline.glob(f"{role}-*.pem"))
        signing.sign(self._fleet, keys[: self._fleet.root().roles[role].threshold], now_s=now_s)

    def _in_force(self) -> bool:
        contents, targets = self._catalogue.contents, self._fleet.targets_bytes()
        return contents is not None and contents.targets == targets and len(contents.roots) == len(self._fleet.roots())

    def _upload(self) -> Uploaded:
        targets = self._fleet.targets_bytes()
        if targets is None:
            raise PolicyError("setup", f"{self._fleet.directory} holds no signed catalogue: remove it to start anew")
        return self._uploading.upload([root.data for root in self._fleet.roots()], targets)
