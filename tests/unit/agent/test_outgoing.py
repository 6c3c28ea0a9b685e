"""What waits for the broker: bounded, newest of a retained topic only."""

from collections.abc import Iterator

import pytest

from device_agent.adapters.outgoing import WAITING_MOST, Message, Outgoing


@pytest.fixture
def outgoing() -> Iterator[Outgoing]:
    box = Outgoing()
    yield box
    box.close()


def _message(topic: str, payload: bytes, qos: int = 1, *, retain: bool = False, wanted: bool = False) -> Message:
    return Message(topic, payload, qos, retain, (lambda: None) if wanted else None)


def _payloads(box: Outgoing) -> list[bytes]:
    return [message.payload for message in box.take()]


def test_retained_ones_replace_each_other(outgoing: Outgoing) -> None:
    for payload in (b"1", b"2"):
        outgoing.put(_message("state", payload, retain=True))
        outgoing.put(_message("reply", payload))
    assert _payloads(outgoing) == [b"1", b"2", b"2"]


def test_qos_0_is_for_now_only(outgoing: Outgoing) -> None:
    outgoing.put(_message("beat", b"1", 0))
    outgoing.online = True
    outgoing.put(_message("beat", b"2", 0))
    assert _payloads(outgoing) == [b"2"]


def test_at_the_bound_goes_what_nobody_waits_for(outgoing: Outgoing) -> None:
    outgoing.put(_message("report", b"kept", wanted=True))
    for number in range(WAITING_MOST + 10):
        outgoing.put(_message("reply", b"%d" % number))
    payloads = _payloads(outgoing)
    assert len(payloads) == WAITING_MOST
    assert payloads[0] == b"kept"
    assert payloads[-1] == b"%d" % (WAITING_MOST + 9)


def test_what_comes_back_stands_in_front_unless_newer_waits(outgoing: Outgoing) -> None:
    outgoing.put(_message("state", b"new", retain=True))
    outgoing.put(_message("reply", b"3"))
    outgoing.give_back(
        [
            _message("reply", b"1"),
            _message("state", b"old", retain=True),
            _message("reply", b"2"),
            _message("b", b"x", 0),
        ]
    )
    assert _payloads(outgoing) == [b"1", b"2", b"new", b"3"]


def test_filters(outgoing: Outgoing) -> None:
    outgoing.subscribe(("a", "b"))
    outgoing.unsubscribe(("b", "never"))
    assert outgoing.take_changes() == (["a"], ["b", "never"])
    outgoing.subscribe(("a",))
    assert outgoing.take_changes() == (["a"], [])
    outgoing.subscribe(("c",))
    assert outgoing.all_filters() == ["a", "c"]
    assert outgoing.take_changes() == ([], [])


def test_ringing_after_the_end_is_harmless() -> None:
    box = Outgoing()
    box.put(_message("reply", b"1"))
    for _ in range(2):
        box.close()
    box.stop()
    box.put(_message("reply", b"2"))
    assert _payloads(box) == [b"1", b"2"]
