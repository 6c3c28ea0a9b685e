"""Rules T1 to T6 of server.services.rollout_tick, with N1 to N6 of the manifests that carry the decisions."""

import sqlite3
from contextlib import AbstractContextManager, closing
from itertools import pairwise
from pathlib import Path

import pytest

from firmware_tools import catalogue as editing
from fleet_protocol.errors import PolicyError, TransportError
from fleet_protocol.manifest import bucket
from server.adapters.sql.store import SqlStore
from server.domain.rollout import Observations, RolloutState
from server.domain.verbs import Verb
from server.ports import Reads
from server.services import job_view
from tests.fakes.server_stack import DAY_S, GROUP, ServerStack

NODES = ("node-1", "node-2", "node-3", "node-4")
SALT = "0000000000000014"


def complete(stack: ServerStack, job: str, *nodes: str) -> None:
    for node in nodes or NODES:
        stack.report(job, node, "committed")
    for _ in range(6):
        stack.tick(after_s=1)
    assert stack.rollout(job).state is RolloutState.COMPLETE


def test_waves_open_on_evidence_and_each_is_one_manifest(stack: ServerStack) -> None:
    job = stack.publish(waves=[{"share": 50, "devices": ["node-1"]}, {"share": 100}], soak_s=10)
    first = stack.manifest().sequence
    assert stack.deployment(job).share_bp == 0
    stack.tick()
    assert (stack.deployment(job).share_bp, stack.manifest().sequence) == (5_000, first + 1)
    stack.tick(after_s=11)
    assert stack.manifest().sequence == first + 1, "soaked, but nobody has committed"
    for node in NODES:
        stack.report(job, node, "committed")
    stack.tick()
    assert (stack.deployment(job).share_bp, stack.manifest().sequence) == (10_000, first + 2)


def selected(stack: ServerStack, job: str) -> list[str]:
    deployment = stack.deployment(job)
    assert deployment is not None
    return [node for node in NODES if deployment.takes_part(node)]


@pytest.fixture
def salted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A salt under which the four devices have buckets far apart, the lowest of them above 5 %."""
    monkeypatch.setattr("server.services.publishing.secrets.token_hex", lambda _: SALT)
    places = sorted(bucket(SALT, node) for node in NODES)
    assert places[0] > 500 and all(later - place > 500 for place, later in pairwise(places))


@pytest.mark.usefixtures("salted")
def test_a_bad_release_stops_at_one_device_however_small_the_group(stack: ServerStack) -> None:
    """E11: 0.01 % holds none of the four."""
    job = stack.publish(waves=[{"share": 0.01}, {"share": 0.02}, {"share": 100}], soak_s=10)
    with stack.store.read() as reads:
        sizes = job_view.view(reads, stack.job(job), stack.rollout(job), stack.clock.now_s()).sizes
    assert sizes == (1, 2, 4)
    stack.tick()
    (canary,) = selected(stack, job)
    stack.tick(after_s=1_000)
    assert stack.rollout(job).wave == 0, "no wave passes by its soak alone while it selects somebody"
    stack.report(job, canary, "rolled_back", code="unhealthy")
    stack.tick()
    assert stack.deployment(job).state == "recalled"
    assert selected(stack, job) == [canary]


@pytest.mark.usefixtures("salted")
def test_who_joins_or_leaves_later_shrinks_no_wave(stack: ServerStack) -> None:
    """E11: the share is decided when the wave opens, and is still the same after a restart."""
    job = stack.publish(waves=[{"share": 0.01}, {"share": 0.02}], soak_s=10)
    stack.tick()
    share_bp, (canary,) = stack.deployment(job).share_bp, selected(stack, job)
    stack.enrol(*(f"late-{number}" for number in range(20)))
    stack = stack.restarted()
    stack.tick()
    assert stack.deployment(job).share_bp == share_bp
    stack.report(job, canary, "committed")
    stack.decommissioning.remove(canary)
    stack.tick(after_s=11)
    assert stack.deployment(job).share_bp >= share_bp
    with stack.store.read() as reads:
        told = [entry.detail for entry in reads.audit_entries(100) if entry.verb == "open-wave"]
    assert told[-1] == f"1 of 2: {share_bp / 100:g} %, asked for 0.01 %"


def test_nobody_stands_in_for_a_named_device_that_is_gone(stack: ServerStack) -> None:
    job = stack.publish(target_nodes=["node-1"], soak_s=10)
    stack.decommissioning.remove("node-1")
    stack.tick()
    assert selected(stack, job) == ["node-1"]
    assert stack.deployment(job).share_bp == 0
    stack.tick(after_s=11)
    assert stack.rollout(job).state is RolloutState.COMPLETE


def test_a_tick_without_evidence_writes_nothing(stack: ServerStack) -> None:
    """T2."""
    stack.publish(waves=[{"share": 100}])
    stack.tick()
    sent = len(stack.link.sent)
    with stack.store.read() as reads:
        before = reads.audit_entries(1_000), reads.documents()
    for _ in range(20):
        stack.tick(after_s=0.1)
    with stack.store.read() as reads:
        assert (reads.audit_entries(1_000), reads.documents()) == before
    assert len(stack.link.sent) == sent


def test_a_failure_recalls_with_a_newer_manifest_and_an_audit_entry(stack: ServerStack) -> None:
    job = stack.publish(waves=[{"share": 0, "devices": ["node-1"]}, {"share": 100}])
    stack.tick()
    before = stack.manifest().sequence
    stack.report(job, "node-1", "rolled_back", code="unhealthy")
    stack.tick()
    assert stack.rollout(job).state is RolloutState.RECALLED
    assert stack.deployment(job).state == "recalled"
    assert stack.manifest().sequence > before
    with stack.store.read() as reads:
        newest = reads.audit_entries(1)[0]
    assert (newest.who, newest.verb, newest.subject) == ("engine", "recall", job)
    assert "unhealthy" in newest.detail


def test_an_operators_own_rollback_is_no_vote_against_the_release(stack: ServerStack) -> None:
    """V3, invariant S7: with no failure tolerated, three committed devices are ordered back one way or the other."""
    job = stack.publish(waves=[{"share": 100}], success_rate=0.5, failure_limit=0, soak_s=60)
    stack.tick()
    for node in NODES:
        stack.report(job, node, "committed")
    stack.report(job, "node-1", "rolled_back")
    stack.report(job, "node-2", "rolled_back", code="withdrawn")
    stack.report(job, "node-3", "abandoned", code="withdrawn")
    stack.tick(after_s=61)
    assert stack.rollout(job).state is RolloutState.ACTIVE, "one of four has committed, two are needed"
    with stack.store.read() as reads:
        view = job_view.view(reads, stack.job(job), stack.rollout(job), stack.clock.now_s() + DAY_S)
    assert (view.counts.committed, view.counts.failed, view.counts.withdrawn, view.counts.silent) == (1, 0, 3, 0)
    assert view.failures == ()
    with pytest.raises(PolicyError, match="no device has failed"):
        stack.retrying.retry(job)
    stack.report(job, "node-1", "committed")
    stack.tick()
    assert stack.rollout(job).state is RolloutState.COMPLETE


def test_completion_supersedes_the_older_deployment_of_the_package(stack: ServerStack) -> None:
    """T3: the older one leaves the manifest, one of another package stays."""
    stack.pack("other", "1.0.0", 1)
    stack.release("web", "2.0.0", 2)
    old, other = stack.publish(), stack.publish(package_name="other")
    complete(stack, old)
    complete(stack, other)
    new = stack.publish(package_version="2.0.0")
    stack.tick()
    assert stack.deployment(old) is not None, "until the new one is complete, both stand"
    complete(stack, new)
    assert stack.deployment(old) is None
    assert stack.deployment(new) is not None and stack.deployment(other) is not None
    assert stack.job(old).superseded


def test_a_named_update_does_not_supersede_that_of_the_group(stack: ServerStack) -> None:
    stack.release("web", "2.0.0", 2)
    old = stack.publish()
    complete(stack, old)
    new = stack.publish(package_version="2.0.0", target_nodes=["node-1"])
    stack.tick()
    complete(stack, new, "node-1")
    assert stack.deployment(old) is not None


def test_a_recalled_deployment_stays_until_it_is_superseded(stack: ServerStack) -> None:
    """N1."""
    stack.release("web", "2.0.0", 2)
    bad = stack.publish()
    stack.tick()
    stack.steering.steer(bad, Verb.RECALL, "smoke")
    assert stack.deployment(bad).state == "recalled"
    good = stack.publish(package_version="2.0.0")
    stack.tick()
    assert stack.deployment(bad).state == "recalled"
    complete(stack, good)
    assert stack.deployment(bad) is None


def test_a_kill_between_commit_and_publication_is_healed_at_the_next_start(stack: ServerStack) -> None:
    """T1, and invariant S6: the transaction has committed, the broker never heard of it."""
    job = stack.publish()
    stack.link.publish = lambda *args, **more: (_ for _ in ()).throw(OSError("killed here"))  # type: ignore[assignment, method-assign]
    with pytest.raises(OSError, match="killed here"), stack.publication.begin() as change:
        stack.manifests.reissue(change, GROUP, stack.clock.now_s())
    again = stack.restarted()
    with again.store.read() as reads:
        assert again.manifest().sequence == reads.group(GROUP).sequence
    again.tick()
    assert again.rollout(job).wave == 0


def test_a_kill_before_the_commit_leaves_the_decision_to_the_next_tick(stack: ServerStack) -> None:
    job = stack.publish()
    sequence = stack.manifest().sequence
    with pytest.raises(KeyboardInterrupt), stack.publication.begin() as change:
        stack.manifests.reissue(change, GROUP, stack.clock.now_s())
        raise KeyboardInterrupt
    assert stack.manifest().sequence == sequence
    again = stack.restarted()
    assert again.rollout(job).wave == -1
    again.tick()
    assert (again.rollout(job).wave, again.manifest().sequence) == (0, sequence + 1)


def test_when_its_time_is_over_no_device_begins_any_more(stack: ServerStack) -> None:
    """E10 and N1: invariant S9."""
    job = stack.publish(waves=[{"share": 100}], expires_s=600)
    stack.tick(after_s=599)
    assert stack.deployment(job).state == "active"
    stack.tick(after_s=2)
    assert (stack.rollout(job).state, stack.deployment(job).state) == (RolloutState.HELD, "held")
    assert "expired" in stack.rollout(job).reason
    for act in (lambda: stack.steering.steer(job, Verb.RESUME), lambda: stack.retrying.retry(job)):
        with pytest.raises(PolicyError, match="expired: publish web"):
            act()
    stack.steering.steer(job, Verb.RECALL)
    assert stack.deployment(job).state == "recalled", "who has it can still be ordered back"


def test_a_complete_rollout_that_expires_takes_no_late_device(stack: ServerStack) -> None:
    job = stack.publish(waves=[{"share": 100}], expires_s=600)
    stack.tick()
    complete(stack, job)
    assert stack.deployment(job).state == "active"
    stack.tick(after_s=600)
    assert (stack.rollout(job).state, stack.deployment(job).state) == (RolloutState.COMPLETE, "held")
    sequence = stack.manifest().sequence
    stack.tick(after_s=6)
    assert stack.manifest().sequence == sequence


def test_a_release_that_leaves_the_catalogue_holds_its_rollout(stack: ServerStack) -> None:
    """T5 and N5."""
    job = stack.publish()
    stack.tick()
    editing.remove(stack.desk, "web", "1.0.0", now_s=stack.clock.now_s())
    stack.sign()
    stack.upload()
    assert stack.deployment(job) is None
    stack.tick()
    assert stack.rollout(job).state is RolloutState.HELD
    assert "left the catalogue" in stack.rollout(job).reason


@pytest.mark.parametrize(
    "trouble", [PolicyError("database", "that row is not readable"), ZeroDivisionError("that row is not readable")]
)
def test_trouble_with_one_rollout_does_not_stop_another(
    stack: ServerStack, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    """T4, and invariant S8: be it a row's fault or a defect of ours."""
    stack.release("other", "1.0.0", 1)
    sick, sound = stack.publish(update_id="a-sick"), stack.publish(package_name="other", update_id="b-sound")
    observe = stack.evidence.observe

    def failing(work, rollout, now_s):  # type: ignore[no-untyped-def]
        if rollout.id == sick:
            raise trouble
        return observe(work, rollout, now_s)

    monkeypatch.setattr(stack.rounds, "_observe", failing)
    stack.tick()
    assert (stack.rollout(sick).wave, stack.rollout(sound).wave) == (-1, 0)
    assert "that row is not readable" in stack.rounds.problems()[0]
    monkeypatch.setattr(stack.rounds, "_observe", observe)
    stack.tick()
    assert stack.rollout(sick).wave == 0
    assert stack.rounds.problems() == []


def test_a_complaint_ends_with_its_rollout(stack: ServerStack, monkeypatch: pytest.MonkeyPatch) -> None:
    job = stack.publish()

    def failing(*_: object) -> Observations:
        raise PolicyError("database", "that row is not readable")

    monkeypatch.setattr(stack.rounds, "_observe", failing)
    stack.tick()
    assert stack.rounds.problems() != []
    stack.steering.steer(job, Verb.RECALL, "given up")
    stack.tick()
    assert stack.rounds.problems() == []


def test_a_locked_database_does_not_end_the_tick(stack: ServerStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """T4: not even reading which rollouts there are is outside of the guard."""
    job, read = stack.publish(), stack.store.read

    def locked() -> AbstractContextManager[Reads]:
        raise TransportError("unreachable", "database: database is locked")

    monkeypatch.setattr(stack.store, "read", locked)
    stack.tick()
    assert "database is locked" in "".join(stack.rounds.problems())
    monkeypatch.setattr(stack.store, "read", read)
    stack.tick(after_s=6)
    assert stack.rollout(job).wave == 0
    assert stack.rounds.problems() == []


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE rollouts SET policy = '{' WHERE id = 'a-sick'",
        "UPDATE rollouts SET state = 'odd' WHERE id = 'a-sick'",
        "UPDATE jobs SET targets = 'x' WHERE id = 'a-sick'",
        "UPDATE device_groups SET issued_s = 'then' WHERE name = 'a-sick'",
    ],
)
def test_an_unreadable_row_does_not_stop_the_others(tmp_path: Path, edit: str) -> None:
    """T4 and N6: the sound rollout of the same group is recalled, and every other manifest is renewed."""
    store = SqlStore(f"sqlite:///{tmp_path}/fairlead.db")
    try:
        stack = ServerStack(tmp_path, store=store)
        stack.pack("other", "1.0.0", 1)
        stack.release("web", "1.0.0", 1)
        stack.enrol("node-1")
        stack.enrol("node-2", group="a-sick")
        whole = [{"share": 100}]
        sick = stack.publish(update_id="a-sick", waves=whole)
        sound = stack.publish(package_name="other", update_id="b-sound", waves=whole)
        stack.tick()
        with closing(sqlite3.connect(tmp_path / "fairlead.db")) as connection, connection:
            assert connection.execute(edit).rowcount == 1
        stack.report(sound, "node-1", "rolled_back", code="unhealthy")
        stack.tick(after_s=DAY_S + 1)
        assert stack.rollout(sound).state is RolloutState.RECALLED
        assert (stack.deployment(sound).state, stack.deployment(sick).state) == ("recalled", "active")
        assert "a-sick" in "".join(stack.rounds.problems())
        stack.uploading.upload([], stack.desk.targets_bytes() or b"")
    finally:
        store.close()


def test_manifests_are_issued_anew_long_before_they_expire(stack: ServerStack) -> None:
    """N4."""
    before = stack.manifest()
    stack.tick(after_s=DAY_S + 1)
    after = stack.manifest()
    assert after.sequence == before.sequence + 1
    assert (after.expires, after.deployments) > (before.expires, before.deployments)
    stack.tick(after_s=10)
    assert stack.manifest().sequence == after.sequence


def test_a_start_issues_nothing_anew_unless_something_has_changed(stack: ServerStack) -> None:
    stack.publish()
    stack.tick()
    again = stack.restarted()
    assert again.manifest().sequence == stack.manifest().sequence


def test_the_same_over_the_real_store(tmp_path: Path) -> None:
    """From publication over a kill to the supersession of the one before, on SQLite."""
    store = SqlStore(f"sqlite:///{tmp_path}/fairlead.db")
    try:
        stack = ServerStack(tmp_path, store=store)
        stack.pack("web", "1.0.0", 1)
        stack.release("web", "2.0.0", 2)
        stack.enrol(*NODES)
        old = stack.publish()
        complete(stack, old)
        new = stack.publish(package_version="2.0.0", window="22:00-04:00")
        stack = stack.restarted()
        complete(stack, new)
        assert stack.deployment(old) is None
        assert stack.deployment(new).fallback.version == "1.0.0"
        assert stack.deployment(new).window.start_min == 1_320
    finally:
        store.close()
