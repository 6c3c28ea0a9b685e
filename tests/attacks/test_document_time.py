"""A8, A12, A13, A15: old documents, withheld documents, wrong time, and two documents with one number."""

from pathlib import Path

import pytest

from fleet_protocol.errors import TransportError
from fleet_protocol.topics import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, TopicType
from tests.fakes.trust_device import enrolled, still_obeys
from tests.fakes.trust_fleet import Fleet, ed25519

DAY_S = 24 * 3600.0


def test_every_older_manifest_is_a_replay(tmp_path: Path) -> None:
    """A8."""
    fleet, device = enrolled(tmp_path)
    old = [fleet.manifest(fleet.deployment()) for _ in range(5)]
    device.offer_manifest(old[-1])
    for data in old[:-1]:
        assert device.refused(lambda data=data: device.offer_manifest(data)) == "replay"
    still_obeys(fleet, device)


def test_the_same_manifest_again_is_no_attack_and_changes_nothing(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    data = fleet.manifest(fleet.deployment())
    first, before = device.offer_manifest(data), device.trusted()
    for _ in range(3):
        assert device.offer_manifest(data) == first
        assert device.trusted() == before


def test_the_same_payload_signed_again_is_the_same_manifest(tmp_path: Path) -> None:
    """Signatures are not part of what is obeyed."""
    fleet, device = enrolled(tmp_path)
    document = fleet.manifest_document(fleet.deployment())
    keys = [*fleet.keys.deployment, *ed25519(2)]
    first = fleet.sign(document, "application/vnd.fairlead.manifest.v1+json", keys)
    second = fleet.sign(document, "application/vnd.fairlead.manifest.v1+json", keys[::-1])
    assert first != second
    assert device.offer_manifest(first) == device.offer_manifest(second)


def test_older_assignments_are_replays(tmp_path: Path) -> None:
    """A8."""
    fleet, device = enrolled(tmp_path)
    old, new = fleet.assignment(group="line-2"), fleet.assignment()
    device.offer_assignment(new)
    assert device.refused(lambda: device.offer_assignment(old)) == "replay"
    assert device.offer_assignment(new)["group"] == "line-1"
    still_obeys(fleet, device)


def test_a_command_is_carried_out_once(tmp_path: Path) -> None:
    """A8: however often it comes, and after it was forgotten too."""
    fleet, device = enrolled(tmp_path)
    data = fleet.command(id="c-1")
    device.offer_command(data)
    assert device.refused(lambda: device.offer_command(data)) == "command"
    again = fleet.command("rollback", id="c-1")
    assert device.refused(lambda: device.offer_command(again)) == "command"
    for number in range(300):
        device.offer_command(fleet.command(id=f"other-{number}", expires=fleet.time(61 + number)))
    assert device.refused(lambda: device.offer_command(data)) == "command"
    assert device.offer_command(fleet.command(id="c-2", expires=fleet.time(600)))["id"] == "c-2"


@pytest.mark.parametrize("late_s", [0.0, 1.0, DAY_S])
def test_an_expired_command_is_not_carried_out(tmp_path: Path, late_s: float) -> None:
    fleet, device = enrolled(tmp_path)
    data = fleet.command(expires=fleet.time(60))
    device.now_s = fleet.now.timestamp() + 60 + late_s
    assert device.refused(lambda: device.offer_command(data)) == "command"


@pytest.mark.parametrize("name", ["timestamp", "snapshot", "targets"])
def test_older_metadata_is_refused(tmp_path: Path, name: str) -> None:
    """A8: the whole of yesterday's catalogue, or one part of it."""
    fleet, device = enrolled(tmp_path)
    old = fleet.retained()
    fleet.publish()
    device.refresh()
    if name == "timestamp":
        device.documents = {**fleet.published, fleet.topic(TIMESTAMP): old[fleet.topic(TIMESTAMP)]}
        assert device.refused(device.refresh) == "replay"
    else:
        kind = SNAPSHOT if name == "snapshot" else TARGETS
        fleet.publish()
        device.documents = {**fleet.published, fleet.topic(kind, version=3): old[fleet.topic(kind, version=1)]}
        assert device.refused_metadata(old[fleet.topic(kind, version=1)]) in ("mismatch", "replay")
    device.documents = None
    still_obeys(fleet, device)


def test_an_online_key_cannot_take_the_catalogue_back(tmp_path: Path) -> None:
    """A8: a snapshot of a newer version that names older targets."""
    fleet, device = enrolled(tmp_path)
    fleet.publish()
    device.refresh()
    fleet.versions = {"targets": 1, "snapshot": 3, "timestamp": 3}
    fleet.put_targets(fleet.published[fleet.topic(TARGETS, version=1)], version=1)
    assert device.refused_metadata(b"") == "replay"
    fleet.versions = dict.fromkeys(fleet.versions, 3)
    fleet.publish()
    still_obeys(fleet, device)


def test_two_manifests_with_one_sequence(tmp_path: Path) -> None:
    """A15: in either order of their coming."""
    for number in (0, 1):
        fleet, device = enrolled(tmp_path / str(number))
        pair = [
            fleet.manifest(fleet.deployment(), sequence=2),
            fleet.manifest(fleet.deployment(state="held"), sequence=2),
        ]
        first, second = pair[number], pair[1 - number]
        device.offer_manifest(first)
        assert device.refused(lambda device=device, second=second: device.offer_manifest(second)) == "equivocation"
        still_obeys(fleet, device)


def test_two_assignments_with_one_sequence(tmp_path: Path) -> None:
    """A15."""
    fleet, device = enrolled(tmp_path)
    other = fleet.assignment(group="line-2", sequence=1)
    assert device.refused(lambda: device.offer_assignment(other)) == "equivocation"
    still_obeys(fleet, device)


def test_documents_that_are_past_their_expiry(tmp_path: Path) -> None:
    """A12, with a clock that is right."""
    fleet, device = enrolled(tmp_path)
    data = fleet.manifest(fleet.deployment(), expires=fleet.time(3600))
    for late_s in (0.0, 1.0, 365 * DAY_S):
        device.now_s = fleet.now.timestamp() + 3600 + late_s
        assert device.refused(lambda: device.offer_manifest(data)) == "expired"
    device.now_s = None
    still_obeys(fleet, device)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_frozen_metadata_is_noticed_by_a_device_without_a_clock(tmp_path: Path, role: str) -> None:
    """A12: its clock stands at 1970; all that it knows of time is what verified documents told it."""
    fleet, device = enrolled(tmp_path)
    device.now_s = 0.0
    freeze(fleet, role)
    device.refresh()
    later = fleet.manifest(fleet.deployment(), issued=fleet.time(5 * DAY_S), expires=fleet.time(9 * DAY_S))
    assert device.attempt(lambda: device.offer_manifest(later)) == "expired"
    fleet.publish(days=60)
    still = fleet.manifest(fleet.deployment(), issued=fleet.time(5 * DAY_S), expires=fleet.time(9 * DAY_S))
    device.offer_manifest(still)
    assert device.desk_time_s() == fleet.now.timestamp() + 5 * DAY_S


def freeze(fleet: Fleet, role: str) -> None:
    """Publish metadata of which one document is valid for three days and the rest for longer."""
    days = {name: 3.0 if name == role else 60.0 for name in ("timestamp", "snapshot", "targets")}
    for name in fleet.versions:
        fleet.versions[name] += 1
    targets = fleet.sign_metadata(fleet.make_targets(2, days=days["targets"]), fleet.keys.targets)
    fleet.put_targets(targets, version=2, days=days["snapshot"])
    snapshot = fleet.published[fleet.topic(SNAPSHOT, version=2)]
    timestamp = fleet.make_timestamp(2, snapshot, days=days["timestamp"])
    fleet.published[fleet.topic(TIMESTAMP)] = fleet.sign_metadata(timestamp, fleet.keys.timestamp)


def test_an_old_manifest_is_noticed_by_a_device_without_a_clock(tmp_path: Path) -> None:
    """A12: the floor is on disk, so a reboot into 1970 brings nothing back."""
    fleet, device = enrolled(tmp_path)
    device.now_s = 0.0
    short = fleet.manifest(fleet.deployment(), expires=fleet.time(3600), sequence=9)
    fleet.publish(days=20)
    device.offer_manifest(fleet.manifest(fleet.deployment(), issued=fleet.time(DAY_S), sequence=3))
    assert device.refused(lambda: device.offer_manifest(short)) == "expired"
    fleet.sequence = 9
    still_obeys(fleet, device)


@pytest.mark.parametrize("issued", ["9999-12-31T23:59:58Z", "2300-01-01T00:00:00Z"])
def test_a_stolen_key_cannot_push_the_time_forward(tmp_path: Path, issued: str) -> None:
    """A13: told by manifest, assignment or command, now or repeatedly."""
    fleet, device = enrolled(tmp_path)
    before = device.floors.time_s
    end = "9999-12-31T23:59:59Z"
    data = fleet.manifest(fleet.deployment(), issued=issued, expires=end)
    assert device.attempt(lambda: device.offer_manifest(data)) == "expired"
    device.offer_assignment(fleet.assignment(issued=issued))
    device.offer_command(fleet.command(issued=issued, expires=end))
    assert device.floors.time_s == before
    still_obeys(fleet, device)


def test_the_time_floor_stays_below_the_expiry_of_what_is_trusted(tmp_path: Path) -> None:
    """A13: at the worst, the next timestamp ends the nuisance."""
    fleet, device = enrolled(tmp_path)
    near = fleet.manifest(fleet.deployment(), issued=fleet.time(29 * DAY_S), expires=fleet.time(40 * DAY_S))
    device.offer_manifest(near)
    assert device.floors.time_s <= fleet.now.timestamp() + 30 * DAY_S
    fleet.now = fleet.now.fromtimestamp(fleet.now.timestamp() + 29 * DAY_S, fleet.now.tzinfo)
    fleet.publish()
    still_obeys(fleet, device)


def test_the_time_floor_is_forgotten_with_the_key_that_raised_it(tmp_path: Path) -> None:
    """A11 for time."""
    fleet, device = enrolled(tmp_path)
    ahead = fleet.manifest(fleet.deployment(), issued=fleet.time(29 * DAY_S), expires=fleet.time(40 * DAY_S))
    device.offer_manifest(ahead)
    fleet.rotate(deployment=ed25519(1))
    still_obeys(fleet, device)
    assert device.desk_time_s() == fleet.now.timestamp()


def test_a_manifest_waits_for_a_catalogue_that_cannot_be_read(tmp_path: Path) -> None:
    """Invariant K2: the sequence is persisted first; the manifest goes on later, and older ones stay out."""
    fleet, device = enrolled(tmp_path)
    fleet.publish()
    older, data = fleet.manifest(fleet.deployment()), fleet.manifest(fleet.deployment("my-service", "1.1.0"))
    good = device.want

    def failing(topic: str) -> bytes | None:
        raise TransportError("timeout", topic)

    device.want = failing
    for _ in range(3):
        assert device.attempt(lambda: device.offer_manifest(data)) == "timeout"
    assert device.floors.manifests["line-1"].sequence == 3
    assert device.refused(lambda: device.offer_manifest(older)) == "replay"
    device.want = good
    assert device.offer_manifest(data)["deployments"][0]["refusal"] is None
    still_obeys(fleet, device)


def test_a_manifest_of_a_newer_root_waits_for_that_root(tmp_path: Path) -> None:
    """A12: withheld roots delay, they do not mislead."""
    fleet, device = enrolled(tmp_path)
    fleet.rotate()
    data = fleet.manifest(fleet.deployment())
    hidden = fleet.topic(ROOT, version=2)
    device.documents = {key: value for key, value in fleet.published.items() if key != hidden}
    assert device.attempt(lambda: device.offer_manifest(data)) == "absent"
    device.documents = None
    assert device.offer_manifest(data)["root"] == 2


@pytest.mark.parametrize("kind", [TIMESTAMP, SNAPSHOT, TARGETS], ids=lambda kind: kind.name)
def test_every_metadata_document_may_be_withheld_for_a_while(tmp_path: Path, kind: TopicType) -> None:
    fleet, device = enrolled(tmp_path)
    fleet.publish()
    hidden = fleet.topic(kind) if kind is TIMESTAMP else fleet.topic(kind, version=2)
    data = fleet.manifest(fleet.deployment())
    device.documents = {topic: kept for topic, kept in fleet.published.items() if topic != hidden}
    assert device.attempt(lambda: device.offer_manifest(data)) == "absent"
    device.documents = None
    assert device.offer_manifest(data)["sequence"] == fleet.sequence
    still_obeys(fleet, device)
