"""The server's use cases over a store in memory, a link that records, and a clock that a test turns.

    stack = ServerStack(tmp_path)
    stack.release("web", "1.0.0", 1)     # really packed, listed, signed and uploaded
    stack.enrol("node-1")
    job = stack.publish(package_version="1.0.0", target_nodes=["node-1"])
    stack.tick()
    stack.link.retained[...]             # what a broker would hold

Keys, catalogue, envelopes and the device's verifier are the real ones.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from securesystemslib.signer import CryptoSigner

from firmware_tools import catalogue as editing
from firmware_tools import ceremony, packing, signing
from firmware_tools.fleet import Fleet
from firmware_tools.packing import ReleaseSpec
from fleet_protocol import envelope, limits
from fleet_protocol.acceptance import open_manifest
from fleet_protocol.catalogue import Kind, Requirement
from fleet_protocol.manifest import Deployment, Manifest
from fleet_protocol.messages import Installed, Outcome
from fleet_protocol.schema import from_payload
from fleet_protocol.topics import MANIFEST, Topics
from server.api.use_cases import UseCases
from server.domain.fleet import AttemptSeen
from server.domain.job import Job
from server.domain.rollout import Rollout
from server.ports import Store
from server.services.artifacts import Artifacts
from server.services.catalogue import Catalogue, Lifetimes
from server.services.catalogue_files import CatalogueFiles
from server.services.commands import Commands
from server.services.decommissioning import Decommissioning
from server.services.devices_asked import DevicesAsked
from server.services.evidence import Evidence
from server.services.guardian import Guardian
from server.services.keyring import KeyDirectory
from server.services.manifests import ManifestRules, Manifests
from server.services.nodes import Nodes
from server.services.publication import Publication
from server.services.publishing import Publishing
from server.services.retrying import Retrying
from server.services.rollout_tick import RolloutTick
from server.services.status import StatusDesk
from server.services.steering import Steering, find
from server.services.update_request import UpdateRequest
from server.services.uploading import Uploaded, Uploading
from server.services.witness import Witness
from tests.fakes.store import MemoryStore

FLEET = "acme"
GROUP = "line-1"
PACKAGE = "web"
CLASS = "x86_64"
URL = "http://server.example:8080"
HOUR_S = 3_600.0
DAY_S = 86_400.0


class TurnedClock:
    """Real time plus what the test has added: TUF's own expiry checks look at the machine's clock."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now_s(self) -> float:
        return time.time() + self.ahead_s


class RecordingLink:
    """Keeps what was published, and what a broker would retain."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bool, int]] = []
        self.retained: dict[str, bytes] = {}
        self.connected = True

    def publish(self, topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        self.sent.append((topic, payload, retain, qos))
        if retain:
            self.retained.pop(topic, None)
            if payload:
                self.retained[topic] = payload


class ServerStack:
    """One server without threads, network or database."""

    def __init__(self, folder: Path, *, store: Store | None = None, desk: Fleet | None = None) -> None:
        self.folder = folder
        self.store = store or MemoryStore()
        self.link = RecordingLink()
        self.clock = TurnedClock()
        self.topics = Topics()
        self.desk = desk or ceremony.init(folder / "desk", fleet=FLEET, now_s=self.clock.now_s(), threshold=1, keys=1)
        self.data = folder / "data"
        self.keyring = KeyDirectory(self.data / "keys")
        self._copy_keys()
        self._wire()

    def _wire(self) -> None:
        """The same as server.app, without adapters."""
        clock = self.clock
        self.publication = Publication(self.store, self.link, self.topics)
        self.artifacts = Artifacts(self.data / "artifacts", most_bytes=1_000_000)
        lifetimes = Lifetimes(snapshot_days=14, timestamp_days=3, resign_s=DAY_S, grace_s=900)
        files = CatalogueFiles(self.data / "catalogue")
        self.catalogue = Catalogue(files, self.keyring, self.topics, fleet=FLEET, lifetimes=lifetimes)
        rules = ManifestRules(fleet=FLEET, life_s=7 * DAY_S, reissue_s=DAY_S)
        self.manifests = Manifests(
            self.catalogue, self.keyring, self.topics, rules=rules, artifact_urls=self._artifact_urls
        )
        self.evidence = Evidence(self.catalogue)
        self.rounds = RolloutTick(
            self.store,
            self.publication,
            self.catalogue,
            self.manifests,
            observe=self.evidence.observe,
            clock=clock,
        )
        self.commands = Commands(
            self.link, self.catalogue, self.keyring, self.topics, fleet=FLEET, timeout_s=0.2, clock=clock
        )
        self.asked = DevicesAsked(self.store, self.commands, clock=clock)
        self.retrying = Retrying(self.store, self.asked, clock=clock)
        self.nodes = Nodes(
            self.publication, self.catalogue, self.manifests, self.keyring, self.topics, fleet=FLEET, clock=clock
        )
        self.witness = Witness(
            self.publication, self.catalogue, self.manifests, self.nodes, self.topics, fleet=FLEET, clock=clock
        )
        self.guardian = Guardian(
            self.store,
            self.publication,
            self.witness,
            clock=clock,
            ask_again=self.rounds.ask_again,
            settle_s=0.0,
        )
        self.decommissioning = Decommissioning(self.publication, self.catalogue, self.topics, clock=clock)
        self.uploading = Uploading(
            self.publication, self.catalogue, self.artifacts, refresh=self.rounds.start, clock=clock
        )
        self.publishing = Publishing(self.publication, self.catalogue, self.manifests, self.artifacts, clock=clock)
        self.steering = Steering(self.publication, self.manifests, self.evidence.observe, clock=clock)
        self.start()

    def start(self) -> None:
        """What server.app does at a start."""
        self.artifacts.recover()
        self.publication.load()
        with self.publication.begin() as change:
            self.catalogue.load(change, self.clock.now_s())
        self.rounds.start()

    def restarted(self) -> "ServerStack":
        """Another server over the same disk and store, as after a kill -9, with an empty broker."""
        again = ServerStack(self.folder, store=self.store, desk=self.desk)
        again.clock.ahead_s = self.clock.ahead_s
        again.publication.restore_all()
        return again

    def use_cases(self) -> UseCases:
        """What the API needs."""
        problems = [lambda: self.catalogue.problems(self.clock.now_s()), self.rounds.problems]
        registry = CollectorRegistry()
        status = StatusDesk(self.store, self.link, broker_url="mqtt://broker:1883", signing="online", problems=problems)
        status.export(registry)
        return UseCases(
            store=self.store,
            clock=self.clock,
            catalogue=self.catalogue,
            artifacts=self.artifacts,
            publishing=self.publishing,
            steering=self.steering,
            retrying=self.retrying,
            nodes=self.nodes,
            decommissioning=self.decommissioning,
            asked=self.asked,
            uploading=self.uploading,
            release_desk=None,
            registry=registry,
            status=status,
        )

    def release(
        self,
        package: str,
        version: str,
        counter: int,
        *,
        classes: tuple[str, ...] = (CLASS,),
        kind: Kind = "files",
        requires: tuple[Requirement, ...] = (),
        stored: bool = True,
    ) -> str:
        """Pack, list and sign a release, store its artifact and upload the catalogue; its sha256."""
        sha256 = self.pack(package, version, counter, classes=classes, kind=kind, requires=requires, stored=stored)
        self.upload()
        return sha256

    def pack(
        self,
        package: str,
        version: str,
        counter: int,
        *,
        classes: tuple[str, ...] = (CLASS,),
        kind: Kind = "files",
        requires: tuple[Requirement, ...] = (),
        stored: bool = True,
    ) -> str:
        """As `release`, without the upload of the catalogue."""
        tree = self.folder / f"{package}-{version}-{'-'.join(classes)}"
        tree.mkdir()
        (tree / "content").write_text(f"{package} {version} {classes}")
        spec = ReleaseSpec(
            package=package, version=version, counter=counter, kind=kind, classes=classes, requires=requires
        )
        out = tree.with_suffix(tree.suffix + ".tar.zst")
        sha256 = packing.pack(tree, out, spec, level=1).sha256
        editing.add(self.desk, out, now_s=self.clock.now_s())
        self.sign()
        if stored:
            self.store_artifact(sha256)
        return sha256

    def sign(self, role: str = "targets") -> None:
        """Sign what waits at the release desk."""
        signing.sign(self.desk, sorted(self.desk.offline.glob(f"{role}-*.pem")), now_s=self.clock.now_s())

    def store_artifact(self, sha256: str) -> None:
        with self.artifacts.upload(sha256) as upload:
            upload.write(self.desk.artifact(sha256).read_bytes())
            upload.finish()

    def upload(self) -> Uploaded:
        """Hand the signed catalogue to the server."""
        targets = self.desk.targets_bytes()
        assert targets is not None
        return self.uploading.upload([root.data for root in self.desk.roots()], targets)

    def enrol(self, *names: str, group: str = GROUP, device_class: str = CLASS) -> dict[str, CryptoSigner]:
        """Enrol devices with fresh keys."""
        signers = {name: CryptoSigner.generate_ed25519() for name in names}
        for name, signer in signers.items():
            self.nodes.register(name, group, device_class, signer.public_key.to_dict())
        return signers

    def publish(self, **members: Any) -> str:
        """The id of a new update; what is not said is as the tests mostly want it."""
        asked = {"update_type": "files", "package_name": PACKAGE, "package_version": "1.0.0", "soak_s": 0} | members
        if "target_nodes" not in asked and "group" not in asked:
            asked["group"] = GROUP
        return self.publishing.create(UpdateRequest.model_validate(asked))[0]

    def tick(self, *, after_s: float = 0.0) -> None:
        """Let time pass, then one round."""
        self.clock.ahead_s += after_s
        self.rounds.tick()

    def report(self, job_id: str, device: str, outcome: Outcome | None, *, code: str | None = None) -> None:
        """Store what the ingest would have stored of a device's signed report."""
        now_s = self.clock.now_s()
        with self.store.begin() as work:
            job, rollout = find(work, job_id)
            stage = "idle" if outcome else "downloading"
            attempt = AttemptSeen(
                deployment=job.id,
                device=device,
                version=rollout.version,
                number=1,
                stage=stage,
                outcome=outcome,
                code=code,
                detail="",
                at_s=now_s,
            )
            work.put_attempts([attempt])
            work.touch_devices([(device, now_s)])

    def installed(
        self, device: str, version: str, counter: int, package: str = PACKAGE, deployment: str | None = None
    ) -> None:
        """Store what a device said it has, and from which deployment."""

        with self.store.begin() as work:
            known = work.device(device)
            assert known is not None
            item = Installed(package=package, version=version, counter=counter, deployment=deployment)
            work.put_device(replace(known, installed=(item,)))

    def hear(self, *names: str) -> None:
        """Something came from these devices just now."""
        with self.store.begin() as work:
            work.touch_devices([(name, self.clock.now_s()) for name in names])

    def job(self, job_id: str) -> Job:
        with self.store.read() as reads:
            return find(reads, job_id)[0]

    def rollout(self, job_id: str) -> Rollout:
        with self.store.read() as reads:
            return find(reads, job_id)[1]

    def manifest(self, group: str = GROUP) -> Manifest:
        """The manifest on the broker, opened as a device opens it."""
        data = self.link.retained[self.topics.of(MANIFEST, group=group)]
        role = self.catalogue.require().root.roles["deployment"]
        return open_manifest(data, role=role, fleet=FLEET, group=group, now_s=self.clock.now_s()).document

    def deployment(self, job_id: str, group: str = GROUP) -> Deployment | None:
        """The job's deployment in the manifest, or None where it has left it."""
        return next((each for each in self.manifest(group).deployments if each.id == job_id), None)

    def document(self, kind: Any, topic: str, max_size: int = limits.MANIFEST_SIZE) -> Any:
        """The payload of any retained envelope, unverified."""
        payload = envelope.decode(self.link.retained[topic], max_size=max_size).payload
        return from_payload(kind, payload, max_size=max_size)

    def _artifact_urls(self, sha256: str) -> tuple[str, ...]:
        return (f"{URL}/artifacts/{sha256}",) if self.artifacts.size(sha256) is not None else ()

    def _copy_keys(self) -> None:
        target = self.data / "keys"
        target.mkdir(parents=True, exist_ok=True)
        for path in self.desk.online.glob("*.pem"):
            copy = target / path.name
            if not copy.exists():
                copy.touch(0o600)
                copy.write_bytes(path.read_bytes())
