"""The queue between the link and the writer."""

import threading
from collections.abc import Callable

from fleet_protocol.topics import HEALTH, Address
from server.ports import Incoming
from server.services.ingest_inbox import Inbox
from tests.fakes.waiting import until


def message(payload: bytes = b"x") -> Incoming:
    return Incoming(address=Address(HEALTH, {"device": "node-1"}), payload=payload, at_s=1.0, ack=lambda: None)


def taking(inbox: Inbox, *, enough: int, linger_s: float) -> tuple[threading.Thread, Callable[[], list[Incoming]]]:
    batches: list[list[Incoming]] = []
    thread = threading.Thread(target=lambda: batches.append(inbox.take(10, enough=enough, linger_s=linger_s)))
    thread.start()
    return thread, lambda: batches[0]


def test_messages_are_taken_in_order_and_at_most_so_many() -> None:
    inbox = Inbox(most=100, most_bytes=1_000)
    messages = [message(b"%d" % number) for number in range(5)]
    assert all(inbox.offer(each) for each in messages)
    assert inbox.take(3, enough=1, linger_s=0) == messages[:3]
    assert inbox.take(3, enough=1, linger_s=0) == messages[3:]
    assert len(inbox) == 0


def test_there_is_no_room_beyond_the_bound_in_messages() -> None:
    inbox = Inbox(most=2, most_bytes=1_000)
    assert [inbox.offer(message()) for _ in range(3)] == [True, True, False]
    inbox.take(1, enough=1, linger_s=0)
    assert inbox.offer(message())


def test_there_is_no_room_beyond_the_bound_in_bytes_but_always_for_one() -> None:
    inbox = Inbox(most=100, most_bytes=10)
    assert inbox.offer(message(bytes(50)))
    assert not inbox.offer(message())
    inbox.take(1, enough=1, linger_s=0)
    assert inbox.offer(message())


def test_the_writer_sleeps_until_the_first_message() -> None:
    inbox = Inbox(most=10, most_bytes=100)
    thread, batch = taking(inbox, enough=1, linger_s=0)
    inbox.offer(message(b"first"))
    thread.join()
    assert [each.payload for each in batch()] == [b"first"]


def test_the_writer_lingers_until_there_are_enough() -> None:
    inbox = Inbox(most=10, most_bytes=100)
    thread, batch = taking(inbox, enough=3, linger_s=3_600)
    for _ in range(3):
        inbox.offer(message())
    thread.join()
    assert len(batch()) == 3


def test_the_writer_lingers_no_longer_than_told() -> None:
    inbox = Inbox(most=10, most_bytes=100)
    inbox.offer(message())
    assert len(inbox.take(10, enough=5, linger_s=0.01)) == 1


def test_closing_wakes_the_writer_and_gives_out_what_is_left() -> None:
    inbox = Inbox(most=10, most_bytes=100)
    thread, batch = taking(inbox, enough=5, linger_s=3_600)
    inbox.offer(message())
    until(lambda: inbox._wanted == 5)
    inbox.close()
    thread.join()
    assert len(batch()) == 1
    assert not inbox.offer(message())
    assert inbox.take(10, enough=5, linger_s=3_600) == []
