"""S1: the server's disk, database and online keys are stolen. S2: a bad release is offered to the server.

What must hold here, as everywhere in this folder, is invariant K1: nothing new runs that the offline keys did not sign.
"""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from firmware_tools import catalogue as editing
from firmware_tools import keys
from firmware_tools.online import make_snapshot, make_timestamp
from fleet_protocol import envelope
from fleet_protocol.acceptance import open_manifest
from fleet_protocol.catalogue import Requirement
from fleet_protocol.envelope import MANIFEST_TYPE
from fleet_protocol.errors import FleetError, ProtocolError
from fleet_protocol.manifest import Deployment, Manifest, Target
from fleet_protocol.payload import to_payload
from fleet_protocol.timestamps import format_time
from server.services.acceptance import accept
from server.services.catalogue_state import verify_contents
from server.services.steering import find
from tests.fakes.server_stack import FLEET, GROUP, ServerStack


@pytest.fixture
def stack(tmp_path: Path) -> ServerStack:
    made = ServerStack(tmp_path)
    made.release("web", "1.0.0", 1)
    made.enrol("node-1")
    return made


def stolen(stack: ServerStack) -> dict[str, CryptoSigner]:
    """Every private key on the server's disk, by public key."""
    found = {}
    for path in stack.data.rglob("*"):
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes():
            signer = keys.load(path)
            found[str(signer.public_key.keyval["public"])] = signer
    return found


def test_s1_the_offline_keys_are_nowhere_on_the_server(stack: ServerStack) -> None:
    roles = stack.catalogue.require().root.roles
    thief = set(stolen(stack))
    publics = {name: {str(key.keyval["public"]) for key in role.keys.values()} for name, role in roles.items()}
    assert not thief & (publics["root"] | publics["targets"])
    assert publics["deployment"] <= thief, "the thief does have the online ones"


@pytest.mark.parametrize("signers", ["all that were stolen", "fresh ones"])
def test_s1_a_thief_can_not_list_a_release(stack: ServerStack, signers: str) -> None:
    """Targets signed by every stolen key, under a snapshot and timestamp that are properly signed."""
    contents = stack.catalogue.require()
    metadata = contents.targets_metadata
    (path,) = metadata.signed.targets
    metadata.signed.targets[path].hashes["sha256"] = "ab" * 32
    metadata.signed.version += 1
    metadata.signatures.clear()
    for signer in stolen(stack).values() if signers == "all that were stolen" else [CryptoSigner.generate_ed25519()]:
        metadata.sign(signer, append=True)
    evil = metadata.to_bytes()
    with pytest.raises(ProtocolError) as caught:
        verify_contents([root.data for root in contents.roots], evil, fleet=FLEET)
    assert caught.value.code == "signature"
    for role, make in (("snapshot", make_snapshot), ("timestamp", make_timestamp)):
        assert stack.keyring.signers(contents.root.roles[role], role), make
    with pytest.raises(FleetError):
        stack.uploading.upload([], evil)


def thiefs_manifest(stack: ServerStack, **changes: Any) -> bytes:
    """A manifest that the stolen deployment key signs."""
    release = stack.catalogue.release("web", "1.0.0")
    members: dict[str, Any] = {
        "id": "d-evil",
        "package": "web",
        "version": "1.0.0",
        "counter": 1,
        "targets": release.targets,
        "state": "active",
        "share_bp": 10_000,
        "salt": "00000000",
        "devices": (),
        "fallback": None,
        "not_before": None,
        "window": None,
        "probation_s": 0,
        "sources": (),
    }
    now_s = time.time()
    manifest = Manifest(
        fleet=FLEET,
        group=GROUP,
        sequence=1_000,
        root=1,
        issued=format_time(now_s),
        expires=format_time(now_s + 600),
        deployments=(Deployment(**members | changes),),
    )
    role = stack.catalogue.require().root.roles["deployment"]
    return envelope.sign(to_payload(manifest), MANIFEST_TYPE, stack.keyring.signers(role, "deployment")).encode()


EVIL = Target(path="web/6.6.6/x86_64.tar.zst", length=1, sha256="ab" * 32)


def test_s1_the_thief_can_choose_among_the_live_catalogue(stack: ServerStack) -> None:
    """Or else the refusals below would prove nothing."""
    document, contents = thiefs_manifest(stack), stack.catalogue.require()
    accept(document, contents, fleet=FLEET, group=GROUP, now_s=time.time())
    role = contents.root.roles["deployment"]
    opened = open_manifest(document, role=role, fleet=FLEET, group=GROUP, now_s=time.time())
    assert [deployment.id for deployment in opened.document.deployments] == ["d-evil"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"targets": (EVIL,), "version": "6.6.6", "counter": 666}, "unlisted"),
        ({"counter": 666}, "mismatch"),
        ({"version": "6.6.6"}, "mismatch"),
        ({"package": "other"}, "mismatch"),
    ],
)
def test_s1_but_brings_in_nothing_new(stack: ServerStack, changes: dict[str, Any], code: str) -> None:
    document = thiefs_manifest(stack, **changes)
    role = stack.catalogue.require().root.roles["deployment"]
    assert open_manifest(document, role=role, fleet=FLEET, group=GROUP, now_s=time.time()), "properly signed"
    with pytest.raises(ProtocolError) as caught:
        accept(document, stack.catalogue.require(), fleet=FLEET, group=GROUP, now_s=time.time())
    assert caught.value.code == code


@pytest.mark.parametrize("member", ["length", "sha256", "version", "counter"])
def test_s1_a_database_edited_by_a_thief_publishes_nothing_unlisted(stack: ServerStack, member: str) -> None:
    """The row of a job or rollout says something else than the catalogue: it leaves the manifest."""

    job_id = stack.publish()
    with stack.store.begin() as work:
        job, rollout = find(work, job_id)
        if member in ("length", "sha256"):
            value: Any = 7 if member == "length" else "ab" * 32
            work.put_job(replace(job, targets=(replace(job.targets[0], **{member: value}),)))
        else:
            work.put_rollout(replace(rollout, **{member: 666 if member == "counter" else "6.6.6"}))
    again = stack.restarted()
    assert again.deployment(job_id) is None
    assert again.manifest().sequence > stack.manifest().sequence


def offered(stack: ServerStack, **members: Any) -> str:
    """The code with which an update is refused; nothing was published."""
    sent, documents = len(stack.link.sent), dict(stack.link.retained)
    with pytest.raises(FleetError) as caught:
        stack.publish(**members)
    assert (len(stack.link.sent), stack.link.retained) == (sent, documents)
    with stack.store.read() as reads:
        assert reads.jobs() == []
    return caught.value.code


def test_s2_a_release_for_other_hardware(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2, classes=("aarch64",))
    assert offered(stack, package_version="2.0.0") == "class"


def test_s2_two_targets_for_one_class(stack: ServerStack) -> None:
    """No device would know which one to take. Our tools refuse it; here the offline keys signed it all the same."""
    stack.pack("web", "2.0.0", 2)
    stack.pack("web", "2.0.0", 2, classes=("aarch64",))
    metadata = stack.desk.targets()
    assert metadata is not None
    metadata.signed.targets["web/2.0.0/aarch64.tar.zst"].custom["classes"] = ["x86_64"]
    metadata.signed.version += 1
    metadata.sign(keys.load(next(stack.desk.offline.glob("targets-*.pem"))))
    stack.uploading.upload([], metadata.to_bytes())
    assert offered(stack, package_version="2.0.0") == "mismatch"


def test_s2_a_release_below_the_floor_or_out_of_the_catalogue(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2)
    editing.remove(stack.desk, "web", "1.0.0", now_s=stack.clock.now_s())
    editing.set_floor(stack.desk, "web", 2, now_s=stack.clock.now_s())
    stack.sign()
    stack.upload()
    assert offered(stack) == "unknown-release"


def test_s2_a_requirement_must_be_listed_at_the_signers_and_here(stack: ServerStack) -> None:
    with pytest.raises(FleetError) as caught:
        stack.release("app", "1.0.0", 1, requires=(Requirement(package="base", sha256="ab" * 32),))
    assert caught.value.code == "conflict"


def test_s2_an_artifact_that_was_altered_on_the_servers_disk(stack: ServerStack) -> None:
    release = stack.catalogue.release("web", "1.0.0")
    path = stack.artifacts.path(release.targets[0].sha256)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + b"x")
    assert offered(stack) == "unknown-artifact"


@pytest.mark.parametrize("where", range(0, 100, 7))
def test_s2_a_catalogue_altered_anywhere_is_refused(stack: ServerStack, where: int) -> None:
    stack.pack("web", "2.0.0", 2)
    targets = stack.desk.targets_bytes()
    assert targets is not None
    at = len(targets) * where // 100
    bad = targets[:at] + bytes([targets[at] ^ 0x01]) + targets[at + 1 :]
    contents = stack.catalogue.contents
    if _same(bad, targets):
        return
    with pytest.raises(FleetError):
        stack.uploading.upload([], bad)
    assert stack.catalogue.contents is contents
    stack.upload()


def _same(bad: bytes, good: bytes) -> bool:
    """Whether the flipped bit says the same: white space, or a key id that stands in no signature."""
    try:
        return bool(json.loads(bad) == json.loads(good))
    except ValueError:
        return False


def test_s1_online_keys_are_private_files(stack: ServerStack) -> None:
    for path in (stack.data / "keys").glob("*.pem"):
        assert path.stat().st_mode & 0o077 == 0
        assert load_pem_private_key(path.read_bytes(), None) is not None
