"""Rules of server/adapters/mqtt/outbox.py, cited by number."""

from server.adapters.mqtt.outbox import Outbox, Outgoing


def state(topic: str, payload: bytes) -> Outgoing:
    return Outgoing(topic, payload, 1, retain=True)


def order(number: int) -> Outgoing:
    return Outgoing("command", b"%d" % number, 1, retain=False)


def drained(outbox: Outbox) -> list[Outgoing]:
    taken = []
    while (message := outbox.take()) is not None:
        taken.append(message)
    assert len(outbox) == 0
    return taken


def test_rule_1_of_a_retained_topic_only_the_newest_waits() -> None:
    outbox = Outbox()
    for payload in (b"1", b"2", b"3"):
        outbox.put(state("manifest", payload))
    assert drained(outbox) == [state("manifest", b"3")]


def test_rule_2_a_retained_topic_that_is_put_again_goes_to_the_end() -> None:
    outbox = Outbox()
    for message in (state("timestamp", b"1"), order(1), state("targets", b"2"), state("timestamp", b"2"), order(2)):
        outbox.put(message)
    assert drained(outbox) == [order(1), state("targets", b"2"), state("timestamp", b"2"), order(2)]


def test_rule_3_the_oldest_order_goes_at_the_bound_and_no_state_does() -> None:
    outbox = Outbox(orders_most=2)
    for message in (order(1), state("manifest", b"1"), order(2), order(3)):
        outbox.put(message)
    assert outbox.dropped == 1
    assert drained(outbox) == [state("manifest", b"1"), order(2), order(3)]


def test_what_was_not_acknowledged_goes_out_first_again() -> None:
    outbox = Outbox()
    for number in range(4):
        outbox.put(order(number))
    taken = [outbox.take(), outbox.take()]
    outbox.give_back([message for message in taken if message is not None])
    assert drained(outbox) == [order(number) for number in range(4)]


def test_what_is_given_back_does_not_replace_what_is_newer() -> None:
    outbox = Outbox()
    outbox.put(state("manifest", b"old"))
    taken = outbox.take()
    assert taken is not None
    outbox.put(state("manifest", b"new"))
    outbox.give_back([taken])
    assert drained(outbox) == [state("manifest", b"new")]


def test_orders_given_back_count_towards_the_bound() -> None:
    outbox = Outbox(orders_most=2)
    outbox.put(order(1))
    taken = outbox.take()
    assert taken is not None
    outbox.give_back([taken])
    outbox.put(order(2))
    outbox.put(order(3))
    assert drained(outbox) == [order(2), order(3)]
