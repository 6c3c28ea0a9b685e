"""Rules W1 to W4 of server.services.witness, G5 of the guardian, and N2, D3 and K2 over the loss of the store.

Together they are invariant S10.

Every scene ends with what a device does that remembers the documents from before the loss.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Timestamp

from firmware_tools.metadata import read
from fleet_protocol.acceptance import Mark, open_assignment, open_manifest
from fleet_protocol.envelope import MANIFEST_TYPE, KeySet
from fleet_protocol.errors import ProtocolError, TransportError
from fleet_protocol.manifest import Manifest
from fleet_protocol.payload import to_payload
from fleet_protocol.timestamps import format_time
from fleet_protocol.topics import ASSIGNMENT, MANIFEST, TIMESTAMP
from server.services.manifests import sign_document
from server.services.sequences import set_floor
from server.services.witness import SEQUENCE_MOST, VERSION_MOST
from tests.fakes.server_stack import DAY_S, FLEET, GROUP, ServerStack
from tests.fakes.store import MemoryStore

TOPIC = f"fleet/v1/groups/{GROUP}/manifest"
ASSIGNED = "fleet/v1/devices/node-1/assignment"
STAMP = "fleet/v1/trust/timestamp"


def role(stack: ServerStack) -> KeySet:
    return stack.catalogue.require().root.roles["deployment"]


class RememberingDevice:
    """What a device has obeyed, by which it tells replays and contradictions."""

    def __init__(self, stack: ServerStack) -> None:
        self.manifest: Mark | None = None
        self.assignment: Mark | None = None
        self.timestamp = 0
        self.obey(stack)

    def obey(self, stack: ServerStack) -> None:
        """Take what the broker retains, or raise as a device refuses it."""
        retained, now_s = stack.link.retained, stack.clock.now_s()
        self.manifest = open_manifest(
            retained[TOPIC], role=role(stack), fleet=FLEET, group=GROUP, now_s=now_s, mark=self.manifest
        ).mark
        self.assignment = open_assignment(
            retained[ASSIGNED], role=role(stack), fleet=FLEET, device="node-1", mark=self.assignment
        ).mark
        version = read(Timestamp, retained[STAMP]).signed.version
        assert version >= self.timestamp, "replay"
        self.timestamp = version


def manifest(stack: ServerStack, sequence: int, **more: Any) -> bytes:
    """A manifest of our own hand that the store does not know."""
    now_s = stack.clock.now_s()
    members = {
        "fleet": FLEET,
        "group": GROUP,
        "sequence": sequence,
        "root": 1,
        "issued": format_time(now_s),
        "expires": format_time(now_s + 60),
        "deployments": (),
    }
    return sign_document(to_payload(Manifest(**members | more)), MANIFEST_TYPE, role(stack), stack.keyring)


def after_the_loss(stack: ServerStack, *, store: MemoryStore | None = None) -> ServerStack:
    """The same server with another memory, connected to the broker that still holds what it published."""
    again = ServerStack(stack.folder, store=store or MemoryStore(), desk=stack.desk)
    again.clock.ahead_s = stack.clock.ahead_s
    own, again.link.retained = dict(again.link.retained), dict(stack.link.retained)
    for topic, payload in again.link.retained.items():
        again.guardian.on_retained(topic, payload)
    again.guardian.on_connected(kept=True)
    again.link.retained |= own
    return again


def audited(stack: ServerStack) -> list[str]:
    with stack.store.read() as reads:
        return [entry.verb for entry in reads.audit_entries(1_000) if entry.who == "guardian"]


@pytest.fixture
def busy(stack: ServerStack) -> ServerStack:
    """It has issued a few of everything."""
    for number in range(5):
        stack.nodes.move("node-1", f"line-{2 - number % 2}")
        stack.tick(after_s=2 * DAY_S / 5)
    stack.nodes.move("node-1", GROUP)
    assert stack.manifest().sequence > 1
    return stack


def test_w1_a_lost_database_continues_above_what_the_broker_holds(busy: ServerStack) -> None:
    device = RememberingDevice(busy)
    with busy.store.read() as reads:
        known = reads.device("node-1")
    assert known is not None
    again = after_the_loss(busy)
    again.guardian.round()
    assert TOPIC not in again.link.retained, "G2: nobody is enrolled, so that nothing is meant for the group"
    again.nodes.register("node-1", GROUP, known.device_class, known.public_key)
    device.obey(again)
    assert "continue" in audited(again)


def test_w1_what_was_heard_counts_though_documents_of_ours_were_quicker(busy: ServerStack) -> None:
    """A device enrols before the first round: what is published for it comes back before anybody has looked."""
    device = RememberingDevice(busy)
    with busy.store.read() as reads:
        known = reads.device("node-1")
    assert known is not None
    again = after_the_loss(busy)
    again.nodes.register("node-1", GROUP, known.device_class, known.public_key)
    for topic in (TOPIC, ASSIGNED):
        again.guardian.on_retained(topic, again.link.retained[topic])
    with pytest.raises(ProtocolError):
        copy.copy(device).obey(again)
    restored = again.guardian.restored
    again.guardian.round()
    device.obey(again)
    assert again.guardian.restored == restored, "nobody has spoilt anything"


def test_w1_without_the_witness_a_device_would_refuse_the_server(busy: ServerStack) -> None:
    """What it is good for: the same loss, and nobody heard the broker."""
    device = RememberingDevice(busy)
    again = ServerStack(busy.folder, store=MemoryStore(), desk=busy.desk)
    again.clock.ahead_s = busy.clock.ahead_s
    again.enrol("node-1")
    with pytest.raises(ProtocolError) as caught:
        device.obey(again)
    assert caught.value.code == "replay"


def test_w1_an_older_copy_of_the_database_continues_above_at_once(stack: ServerStack) -> None:
    assert isinstance(stack.store, MemoryStore)
    backup = MemoryStore()
    backup._tables = copy.deepcopy(stack.store._tables)
    job = stack.publish(waves=[{"share": 100}])
    stack.tick()
    stack.nodes.move("node-1", "line-2")
    stack.nodes.move("node-1", GROUP)
    device = RememberingDevice(stack)
    again = after_the_loss(stack, store=backup)
    again.guardian.round()
    device.obey(again)
    assert again.deployment(job) is None, "W4: only the number comes back, not what was forgotten"


def test_w1_the_same_number_with_other_content_is_left_behind_too(stack: ServerStack) -> None:
    """Otherwise devices would see two documents with one sequence: equivocation."""
    theirs = manifest(stack, stack.manifest().sequence)
    stack.guardian.on_retained(TOPIC, theirs)
    before = stack.manifest().sequence
    assert stack.guardian.round() == 0, "it was ours"
    assert stack.manifest().sequence == before + 1


def test_w1_an_older_document_of_ours_is_put_right_and_not_followed(stack: ServerStack) -> None:
    old = stack.link.retained[TOPIC]
    stack.publish()
    sequence = stack.manifest().sequence
    stack.guardian.on_retained(TOPIC, old)
    assert stack.guardian.round() == 1
    assert stack.manifest().sequence == sequence
    assert audited(stack) == ["restore"]


def test_w2_an_expired_one_counts_too(stack: ServerStack) -> None:
    theirs = manifest(stack, 57)
    stack.clock.ahead_s += 30 * DAY_S
    stack.guardian.on_retained(TOPIC, theirs)
    stack.guardian.round()
    assert stack.manifest().sequence == 58


def test_w2_nobody_elses_word_counts(stack: ServerStack, tmp_path: Path) -> None:
    stranger = ServerStack(tmp_path / "stranger")
    stranger.release("web", "1.0.0", 1)
    forged = [
        manifest(stranger, 57),
        manifest(stack, 57, group="line-9"),
        manifest(stack, 57, fleet="other"),
        manifest(stack, 57)[:-2],
        stack.link.retained[ASSIGNED],
        b'{"signatures": []}',
    ]
    sequence = stack.manifest().sequence
    for payload in forged:
        stack.guardian.on_retained(TOPIC, payload)
        assert stack.guardian.round() == 1
    assert stack.manifest().sequence == sequence
    assert "continue" not in audited(stack)


def test_w3_a_number_that_leaves_no_room_is_not_followed(stack: ServerStack) -> None:
    sequence = stack.manifest().sequence
    stack.guardian.on_retained(TOPIC, manifest(stack, 2**53 - 1))
    assert stack.guardian.round() == 1
    assert stack.manifest().sequence == sequence
    stack.guardian.on_retained(TOPIC, manifest(stack, SEQUENCE_MOST))
    stack.guardian.round()
    assert stack.manifest().sequence == SEQUENCE_MOST + 1
    assert VERSION_MOST < 10**9 / 2


def test_w4_where_nothing_can_be_issued_now_the_next_tick_does_it(
    stack: ServerStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(stack.manifests, "reissue", lambda *_: (_ for _ in ()).throw(TransportError("unreachable", "x")))
        stack.guardian.on_retained(TOPIC, manifest(stack, 57))
        stack.guardian.round()
    assert stack.manifest().sequence < 57
    stack.tick(after_s=6)
    assert stack.manifest().sequence == 58


def test_w4_a_locked_database_loses_no_evidence(stack: ServerStack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.guardian.on_retained(TOPIC, manifest(stack, 57))
    with monkeypatch.context() as broken:
        broken.setattr(stack.store, "begin", lambda: (_ for _ in ()).throw(TransportError("unreachable", "locked")))
        with pytest.raises(TransportError):
            stack.guardian.round()
    stack.guardian.round()
    assert stack.manifest().sequence == 58


def test_k2_online_signatures_are_signed_above_what_the_broker_holds(stack: ServerStack) -> None:
    """The whole data directory was lost, and its catalogue came anew from the release desk."""
    stack.tick(after_s=1.1 * DAY_S)
    stack.tick(after_s=1.1 * DAY_S)
    before = read(Timestamp, stack.link.retained[STAMP]).signed
    assert before.version > 2
    again = ServerStack(stack.folder / "new", desk=stack.desk)
    again.clock.ahead_s = stack.clock.ahead_s
    again.upload()
    assert read(Timestamp, again.link.retained[STAMP]).signed.version < before.version
    again.guardian.on_retained(STAMP, stack.link.retained[STAMP])
    again.guardian.round()
    after = read(Timestamp, again.link.retained[STAMP]).signed
    assert after.version == before.version + 1
    assert after.snapshot_meta.version == before.snapshot_meta.version + 1
    assert TIMESTAMP.retain and again.topics.of(TIMESTAMP) == STAMP


def test_g5_a_server_without_a_catalogue_touches_nothing_it_does_not_know(busy: ServerStack) -> None:
    device = RememberingDevice(busy)
    empty = ServerStack(busy.folder / "new", desk=busy.desk)
    empty.clock.ahead_s = busy.clock.ahead_s
    for topic, payload in busy.link.retained.items():
        empty.guardian.on_retained(topic, payload)
    empty.guardian.on_connected(kept=True)
    assert empty.guardian.round() == 0
    assert empty.link.sent == []
    empty.upload()
    empty.guardian.round()
    empty.enrol("node-1")
    device.obey(empty)


def test_a_flood_of_foreign_documents_does_not_fill_the_memory(stack: ServerStack) -> None:
    for number in range(600):
        stack.guardian.on_retained(stack.topics.of(MANIFEST, group=f"ghost-{number}"), bytes(200_000))
    assert stack.guardian._kept_bytes <= 64 * 1024 * 1024
    assert stack.guardian.round() == 600
    assert stack.guardian._kept_bytes == 0
    topic = stack.topics.of(ASSIGNMENT, device="node-1")
    right = stack.link.retained[topic]
    for payload in (b"wrong", b"more wrong", right):
        stack.guardian.on_retained(topic, payload)
    assert stack.guardian.round() == 0
    assert stack.guardian._kept_bytes == 0


def test_an_operators_floor_is_below_everything_that_is_issued(stack: ServerStack) -> None:
    device = RememberingDevice(stack)
    again = ServerStack(stack.folder, store=MemoryStore(), desk=stack.desk)
    with again.store.begin() as work:
        set_floor(work, 5_000)
        set_floor(work, 7)
    again.enrol("node-1", "node-9")
    device.obey(again)
    assert again.manifest().sequence == 5_001
    again.rounds.start()
    assert (again.manifest().sequence, again.nodes.refresh()) == (5_001, 0)


def test_an_operators_floor_raises_what_is_there(stack: ServerStack) -> None:
    with stack.store.begin() as work:
        set_floor(work, 5_000)
    stack.rounds.start()
    assert stack.nodes.refresh() == 4
    assert stack.manifest().sequence == 5_001
    assignment = open_assignment(stack.link.retained[ASSIGNED], role=role(stack), fleet=FLEET, device="node-1")
    assert assignment.document.sequence == 5_001
