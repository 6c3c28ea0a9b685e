"""Reading a retained document: what is there, what is not, and what can not be told."""

import pytest

from device_agent.adapters.link_reader import LinkReader
from fleet_protocol.errors import TransportError
from fleet_protocol.topics import Topics
from tests.fakes.agent_link import FakeBroker, FakeLink, HeardListener

TRUST = "fleet/v1/trust/"


class Ear(HeardListener):
    """A listener that passes on to the reader."""

    reader: LinkReader

    def received(self, topic: str, payload: bytes) -> None:
        super().received(topic, payload)
        self.reader.offer(topic, payload)


def _reader(*, start: bool = True) -> tuple[LinkReader, FakeBroker, FakeLink]:
    broker, ear = FakeBroker(), Ear()
    link = FakeLink(broker, ear, "fleet/v1/devices/node-1/availability")
    ear.reader = LinkReader(link, Topics())
    link.subscribe((TRUST + "timestamp",))
    if start:
        link.start()
    return ear.reader, broker, link


def test_what_is_there_and_what_is_not() -> None:
    reader, broker, link = _reader()
    for name in ("timestamp", "root/1", "snapshot/3"):
        broker.publish(TRUST + name, name.encode(), retain=True)
    assert reader.read(TRUST + "snapshot/3", timeout_s=5) == b"snapshot/3"
    assert reader.read(TRUST + "snapshot/4", timeout_s=5) is None
    assert reader.read(TRUST + "timestamp", timeout_s=5) == b"timestamp"
    assert reader.read(TRUST + "root/1", timeout_s=5) == b"root/1"
    link.stop()


def test_rule_3_only_the_standing_subscription_stays() -> None:
    reader, broker, link = _reader()
    broker.publish(TRUST + "timestamp", b"t", retain=True)
    reader.read(TRUST + "snapshot/4", timeout_s=5)
    assert link._subscribed == {TRUST + "timestamp"}
    link.stop()


def test_a_broker_that_holds_nothing_tells_nothing() -> None:
    reader, _, link = _reader()
    with pytest.raises(TransportError) as caught:
        reader.read(TRUST + "snapshot/3", timeout_s=0.05)
    assert caught.value.code == "timeout"
    link.stop()


def test_without_a_connection() -> None:
    reader, _, link = _reader(start=False)
    with pytest.raises(TransportError) as caught:
        reader.read(TRUST + "snapshot/3", timeout_s=5)
    assert caught.value.code == "unreachable"
    link.stop()
