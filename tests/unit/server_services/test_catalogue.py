"""Rules K1 to K4 and C1 to C5 of the server's catalogue."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from firmware_tools import catalogue as editing
from firmware_tools import ceremony, rotation
from firmware_tools.rotation import KeyChange
from fleet_protocol.errors import FleetError, PolicyError
from server.services.keyring import KeyDirectory
from tests.fakes.server_stack import DAY_S, ServerStack

PREFIX = "fleet/v1/trust"


def trust(stack: ServerStack) -> set[str]:
    return {topic.removeprefix(f"{PREFIX}/") for topic in stack.link.retained if topic.startswith(PREFIX)}


def refusal(stack: ServerStack, roots: list[bytes], targets: bytes) -> str:
    """The detail of the refusal; nothing changed in memory, on disk, in the store or on the broker."""
    disk = {path.name: path.read_bytes() for path in (stack.data / "catalogue" / "metadata").glob("*")}
    sent, contents = len(stack.link.sent), stack.catalogue.contents
    with pytest.raises(PolicyError) as caught:
        stack.uploading.upload(roots, targets)
    assert stack.catalogue.contents is contents
    assert len(stack.link.sent) == sent
    assert {path.name: path.read_bytes() for path in (stack.data / "catalogue" / "metadata").glob("*")} == disk
    return f"{caught.value.code} {caught.value.detail}"


def signed(stack: ServerStack) -> tuple[list[bytes], bytes]:
    targets = stack.desk.targets_bytes()
    assert targets is not None
    return [root.data for root in stack.desk.roots()], targets


def test_an_upload_is_published_in_the_order_in_which_it_is_read(empty: ServerStack) -> None:
    uploaded = empty.upload()
    assert (uploaded.root, uploaded.targets, uploaded.releases) == (1, 1, 0)
    assert [topic.removeprefix(f"{PREFIX}/") for topic, *_ in empty.link.sent] == [
        "root/1",
        "targets/1",
        "snapshot/1",
        "timestamp",
    ]


def test_a_release_without_its_artifact_is_named(empty: ServerStack) -> None:
    sha256 = empty.pack("web", "1.0.0", 1, stored=False)
    assert empty.upload().missing == (sha256,)
    empty.store_artifact(sha256)
    assert empty.upload().missing == ()


@pytest.mark.parametrize("place", ["signature", "payload"])
def test_k1_altered_targets(stack: ServerStack, place: str) -> None:
    roots, targets = signed(stack)
    document = json.loads(targets)
    if place == "signature":
        document["signatures"][0]["sig"] = "00" * 64
    else:
        document["signed"]["version"] += 1
    assert "signature" in refusal(stack, roots, json.dumps(document).encode())


def test_k1_every_member_of_the_upload_is_strict(stack: ServerStack) -> None:
    roots, targets = signed(stack)
    assert "parse" in refusal(stack, roots, targets[:-2])
    assert "parse" in refusal(stack, roots, targets.replace(b'"signed"', b'"signed": {}, "signed"', 1))
    assert "type" in refusal(stack, roots, roots[0])
    assert "size" in refusal(stack, roots, b" " * 6_000_000)


def test_c2_a_catalogue_of_another_fleet(empty: ServerStack, tmp_path: Path) -> None:
    other = ceremony.init(tmp_path / "other", fleet="other", now_s=empty.clock.now_s(), threshold=1, keys=1)
    targets = other.targets_bytes()
    assert targets is not None
    with pytest.raises(PolicyError, match="of fleet other"):
        empty.uploading.upload([root.data for root in other.roots()], targets)


def test_k2_neither_root_nor_targets_go_back(stack: ServerStack) -> None:
    old = signed(stack)
    stack.release("web", "2.0.0", 2)
    assert "replay" in refusal(stack, *old)
    rotation.rotate(stack.desk, KeyChange(), now_s=stack.clock.now_s())
    stack.sign("root")
    stack.upload()
    with stack.store.read() as reads:
        assert reads.document(f"{PREFIX}/root/2") is not None
    stack.upload()
    stack.catalogue._files.replace({})
    again = stack.restarted()
    assert again.catalogue.contents is None
    assert "replay" in refusal(again, signed(again)[0], old[1])


def test_k2_another_fleet_key_set_under_the_same_name(stack: ServerStack, tmp_path: Path) -> None:
    """Whoever gets the token can not bring in a chain of roots of his own."""
    evil = ceremony.init(tmp_path / "evil", fleet="acme", now_s=stack.clock.now_s(), threshold=1, keys=1)
    targets = evil.targets_bytes()
    assert targets is not None
    assert "known with other content" in refusal(stack, [root.data for root in evil.roots()], targets)


def test_known_roots_may_be_left_out(stack: ServerStack) -> None:
    stack.pack("web", "2.0.0", 2)
    _, targets = signed(stack)
    assert stack.uploading.upload([], targets).releases == 2


def test_a_root_rotation_reaches_devices_and_manifests(stack: ServerStack) -> None:
    stack.publish()
    rotation.rotate(stack.desk, KeyChange(), now_s=stack.clock.now_s())
    stack.sign("root")
    stack.upload()
    assert {"root/1", "root/2"} <= trust(stack)
    assert stack.manifest().root == 2


def test_an_exchanged_online_key_is_used_at_once(stack: ServerStack) -> None:
    """The new keys are put beside the old ones; the server finds them by what root lists."""
    rotation.rotate(stack.desk, KeyChange(online=("deployment", "timestamp")), now_s=stack.clock.now_s())
    stack.sign("root")
    assert "keys" in refusal(stack, *signed(stack))
    for path in stack.desk.online.glob("*.pem"):
        copy = stack.data / "keys" / f"new-{path.name}"
        copy.touch(0o600)
        copy.write_bytes(path.read_bytes())
    stack.upload()
    assert stack.manifest().root == 2


def test_k3_a_catalogue_edited_by_hand_is_not_used(stack: ServerStack) -> None:
    stack.publish()
    before = dict(stack.link.retained)
    path = next((stack.data / "catalogue" / "metadata").glob("*.targets.json"))
    path.write_bytes(path.read_bytes().replace(b'"web"', b'"evl"'))
    again = stack.restarted()
    assert again.catalogue.contents is None
    assert "not used" in again.catalogue.problems(again.clock.now_s())[0]
    assert again.link.retained == before, "what was published stays as it was"
    with pytest.raises(PolicyError, match="not used"):
        again.publish(target_nodes=["node-1"])
    again.tick(after_s=2 * DAY_S)
    assert again.link.retained == before
    again.clock.ahead_s = 0
    again.upload()
    assert again.catalogue.problems(again.clock.now_s()) == []


def test_k3_files_that_are_gone(stack: ServerStack) -> None:
    stack.catalogue._files.replace({})
    again = stack.restarted()
    assert "gone from the disk" in again.catalogue.problems(again.clock.now_s())[0]


def test_a_whole_other_catalogue_on_disk_is_not_used(stack: ServerStack, tmp_path: Path) -> None:
    evil = ceremony.init(tmp_path / "evil", fleet="acme", now_s=stack.clock.now_s(), threshold=1, keys=1)
    stack.catalogue._files.replace({path.name: path.read_bytes() for path in evil.metadata.glob("*.json")})
    again = stack.restarted()
    assert again.catalogue.contents is None
    assert again.link.retained == stack.link.retained


def test_a_timestamp_edited_by_hand_is_signed_anew(stack: ServerStack) -> None:
    path = stack.data / "catalogue" / "metadata" / "timestamp.json"
    path.write_bytes(path.read_bytes().replace(b'"version":', b'"version":9'))
    again = stack.restarted()
    assert again.catalogue.contents is not None
    published = Metadata.from_bytes(again.link.retained[f"{PREFIX}/timestamp"]).signed.version
    assert published == Metadata.from_bytes(stack.link.retained[f"{PREFIX}/timestamp"]).signed.version + 1


def test_metadata_laid_on_the_disk_by_export_server_is_taken_at_the_start(empty: ServerStack) -> None:
    """Roots and targets alone; the server signs the rest."""
    empty.pack("web", "1.0.0", 1)
    place = empty.data / "catalogue" / "metadata"
    place.mkdir(parents=True)
    for path in empty.desk.metadata.glob("*.json"):
        (place / path.name).write_bytes(path.read_bytes())
    again = empty.restarted()
    assert [release.version for release in again.catalogue.require().releases] == ["1.0.0"]
    assert {"root/1", "timestamp", "snapshot/1"} <= trust(again)


def test_k4_a_crash_after_the_disk_was_written_is_finished_at_the_start(stack: ServerStack) -> None:
    stack.pack("web", "2.0.0", 2)
    roots, targets = signed(stack)
    with pytest.raises(KeyboardInterrupt), stack.publication.begin() as change:
        stack.catalogue.offer(change, roots, targets, stack.clock.now_s())
        raise KeyboardInterrupt
    again = stack.restarted()
    assert again.catalogue.require().targets == targets
    assert again.link.retained[f"{PREFIX}/targets/{again.catalogue.require().targets_version}"] == targets


@pytest.mark.parametrize("cut", ["written", "old-moved"])
def test_a_replacement_cut_short_leaves_the_old_set_or_the_new(stack: ServerStack, cut: str) -> None:
    place = stack.data / "catalogue"
    if cut == "written":
        (place / "metadata.new").mkdir()
        (place / "metadata.new" / "timestamp.json").write_bytes(b"half")
    else:
        (place / "metadata").rename(place / "metadata.new")
        (place / "metadata.old").mkdir()
    again = stack.restarted()
    assert again.catalogue.contents is not None
    assert {path.name for path in place.iterdir()} == {"metadata"}


def test_online_signatures_are_renewed_before_they_expire(stack: ServerStack) -> None:
    def versions() -> tuple[int, int]:
        signed_ = Metadata.from_bytes(stack.link.retained[f"{PREFIX}/timestamp"]).signed
        return signed_.version, signed_.snapshot_meta.version

    timestamp, snapshot = versions()
    stack.tick(after_s=DAY_S + 1)
    assert versions() == (timestamp + 1, snapshot), "a young snapshot is kept: devices fetch one document"
    for _ in range(7):
        stack.tick(after_s=DAY_S + 1)
    assert versions()[1] == snapshot + 1


def test_replaced_topics_are_cleared_after_the_grace(stack: ServerStack) -> None:
    stack.tick()
    stack.release("web", "2.0.0", 2)
    assert len([topic for topic in trust(stack) if topic.startswith(("snapshot", "targets"))]) > 2
    stack.tick(after_s=10)
    stack.tick(after_s=1_000)
    contents = stack.catalogue.require()
    assert {topic for topic in trust(stack) if topic.startswith("targets")} == {f"targets/{contents.targets_version}"}
    assert "root/1" in trust(stack)


def test_offline_signatures_that_end_soon_are_a_problem(stack: ServerStack) -> None:
    assert stack.catalogue.problems(stack.clock.now_s()) == []
    stack.clock.ahead_s += 85 * DAY_S
    assert "sign a new one" in stack.catalogue.problems(stack.clock.now_s())[0]


def test_an_expired_catalogue_is_refused(stack: ServerStack) -> None:
    roots, targets = signed(stack)
    stack.clock.ahead_s += 100 * DAY_S
    assert "expired" in refusal(stack, roots, targets)


def test_keys_that_others_can_read_are_refused(stack: ServerStack) -> None:
    path = next((stack.data / "keys").glob("*.pem"))
    path.chmod(0o644)
    with pytest.raises(FleetError, match="chmod 600"):
        stack.upload()


def test_a_missing_key_is_told_by_its_role(stack: ServerStack, tmp_path: Path) -> None:
    role: Any = stack.catalogue.require().root.roles["timestamp"]
    with pytest.raises(PolicyError, match="1 timestamp key"):
        KeyDirectory(tmp_path / "nothing").signers(role, "timestamp")


def test_a_foreign_key_is_not_taken_for_one_of_ours(stack: ServerStack, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    descriptor = os.open(folder / "timestamp.pem", os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(CryptoSigner.generate_ed25519().private_bytes)
    with pytest.raises(PolicyError, match="holds 0"):
        KeyDirectory(folder).signers(stack.catalogue.require().root.roles["timestamp"], "timestamp")


def test_the_floor_of_the_catalogue_reaches_the_manifests(stack: ServerStack) -> None:
    job = stack.publish()
    stack.pack("web", "2.0.0", 2)
    editing.remove(stack.desk, "web", "1.0.0", now_s=stack.clock.now_s())
    editing.set_floor(stack.desk, "web", 2, now_s=stack.clock.now_s())
    stack.sign()
    stack.upload()
    assert stack.deployment(job) is None
