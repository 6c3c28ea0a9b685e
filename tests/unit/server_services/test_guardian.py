"""Rules G1 to G6 of server.services.guardian, and P1 to P4 of the publication beneath it."""

import threading
from contextlib import AbstractContextManager

import pytest

from fleet_protocol.errors import TransportError
from server.ports import Work
from server.services.guardian import Guardian
from tests.fakes.server_stack import GROUP, ServerStack
from tests.fakes.waiting import DEADLINE_S, until

TOPIC = f"fleet/v1/groups/{GROUP}/manifest"


@pytest.fixture
def sent(stack: ServerStack) -> list[tuple[str, bytes]]:
    """What is published from now on."""
    seen: list[tuple[str, bytes]] = []
    publish = stack.link.publish

    def recording(topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        seen.append((topic, payload))
        publish(topic, payload, retain=retain, qos=qos)

    stack.link.publish = recording  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("foreign", [b"", b"x", b"{}"])
def test_g1_emptied_or_overwritten_is_put_right(
    stack: ServerStack, sent: list[tuple[str, bytes]], foreign: bytes
) -> None:
    right = stack.link.retained[TOPIC]
    stack.guardian.on_retained(TOPIC, foreign)
    assert stack.guardian.round() == 1
    assert sent == [(TOPIC, right)]
    assert stack.guardian.round() == 0


def test_g2_a_topic_that_must_be_empty_is_emptied(stack: ServerStack, sent: list[tuple[str, bytes]]) -> None:
    ghost = "fleet/v1/groups/ghost/manifest"
    stack.guardian.on_retained(ghost, b"x")
    stack.guardian.round()
    assert sent == [(ghost, b"")]
    stack.guardian.on_retained(ghost, b"")
    assert stack.guardian.round() == 0


def test_g3_a_flood_is_one_publication_and_one_audit_entry(stack: ServerStack, sent: list[tuple[str, bytes]]) -> None:
    for _ in range(10):
        for number in range(1_000):
            stack.guardian.on_retained(TOPIC, b"%d" % number)
        stack.guardian.round()
    assert len(sent) == 10
    with stack.store.read() as reads:
        entries = [entry for entry in reads.audit_entries(1_000) if entry.who == "guardian"]
    assert len(entries) == 1
    assert stack.guardian.restored == 10
    stack.clock.ahead_s += 120
    stack.guardian.on_retained(TOPIC, b"again")
    stack.guardian.round()
    with stack.store.read() as reads:
        assert "10 since" in reads.audit_entries(1)[0].detail


def test_g4_echoes_are_no_alarm_however_late(stack: ServerStack, sent: list[tuple[str, bytes]]) -> None:
    patient = Guardian(
        stack.store,
        stack.publication,
        stack.witness,
        clock=stack.clock,
        ask_again=stack.rounds.ask_again,
        settle_s=3_600,
    )
    old = stack.link.retained[TOPIC]
    stack.publish()
    new = stack.link.retained[TOPIC]
    sent.clear()
    patient.on_retained(TOPIC, old)
    assert patient.round() == 0, "the newer one may be on its way"
    patient.on_retained(TOPIC, new)
    patient._settle_s = 0.0
    assert patient.round() == 0
    assert sent == []


def test_g4_a_replayed_document_of_our_own_is_foreign(stack: ServerStack, sent: list[tuple[str, bytes]]) -> None:
    old = stack.link.retained[TOPIC]
    stack.publish()
    new = stack.link.retained[TOPIC]
    sent.clear()
    for payload in (old, new, old):
        stack.guardian.on_retained(TOPIC, payload)
    assert stack.guardian.round() == 1
    assert sent == [(TOPIC, new)]


def test_a_round_that_fails_is_complained_of_and_the_next_one_happens(
    stack: ServerStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is locked just when the guardian wants to tell of what it put right."""
    begin, tried, stop = stack.store.begin, threading.Semaphore(0), threading.Event()

    def locked() -> AbstractContextManager[Work]:
        tried.release()
        raise TransportError("unreachable", "database: database is locked")

    monkeypatch.setattr(stack.store, "begin", locked)
    stack.guardian.on_retained(TOPIC, b"")
    thread = threading.Thread(target=stack.guardian.run, args=(stop,))
    thread.start()
    try:
        for _ in range(2):
            assert tried.acquire(timeout=DEADLINE_S)
        until(lambda: "database is locked" in "".join(stack.guardian.problems()))
        monkeypatch.setattr(stack.store, "begin", begin)
        until(lambda: not stack.guardian.problems())
    finally:
        stop.set()
        thread.join()
    with stack.store.read() as reads:
        assert (reads.audit_entries(1)[0].who, reads.audit_entries(1)[0].verb) == ("guardian", "restore")


def test_a_new_connection_gets_everything(stack: ServerStack, sent: list[tuple[str, bytes]]) -> None:
    stack.guardian.on_connected(kept=True)
    stack.guardian.round()
    with stack.store.read() as reads:
        assert dict(sent) == dict(reads.documents())
    stack.guardian.round()
    assert len(sent) == len(dict(sent))


def test_p2_documents_leave_in_the_order_of_their_transactions(stack: ServerStack) -> None:
    """Many threads issue manifests; what the broker got last is what the store has."""
    order: list[int] = []
    publish = stack.link.publish

    def slowly(topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        publish(topic, payload, retain=retain, qos=qos)
        order.append(stack.manifest().sequence)

    stack.link.publish = slowly  # type: ignore[method-assign]

    def issue() -> None:
        for _ in range(5):
            with stack.publication.begin() as change:
                stack.manifests.reissue(change, GROUP, stack.clock.now_s())

    threads = [threading.Thread(target=issue) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == sorted(order)
    assert len(set(order)) == 20
    with stack.store.read() as reads:
        group = reads.group(GROUP)
        assert group is not None and group.sequence == order[-1]


def test_p3_a_transaction_that_raises_publishes_nothing(stack: ServerStack, sent: list[tuple[str, bytes]]) -> None:
    with pytest.raises(ZeroDivisionError), stack.publication.begin() as change:
        change.put_document(TOPIC, b"new")
        raise ZeroDivisionError
    assert sent == []
    assert stack.publication.wanted(TOPIC) == stack.link.retained[TOPIC]


def test_g6_where_the_broker_dropped_what_devices_reported_they_are_asked_again(stack: ServerStack) -> None:
    """By a newer manifest (T6), which every device answers with a report; once a minute at the most."""
    sequences = []
    for kept in (True, False, False):
        stack.guardian.on_connected(kept)
        stack.guardian.round()
        stack.tick(after_s=6)
        sequences.append(stack.manifest().sequence)
    first = sequences[0]
    assert sequences == [first, first + 1, first + 1]


def test_g6_nobody_is_asked_before_the_broker_has_told_what_it_holds(stack: ServerStack) -> None:
    before = stack.manifest().sequence
    stack.guardian.on_connected(kept=False)
    stack.tick(after_s=6)
    assert stack.manifest().sequence == before
