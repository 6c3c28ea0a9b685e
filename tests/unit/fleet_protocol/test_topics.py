"""Topics: spelling and reading are inverse, and nothing hostile is ever a Fairlead topic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import limits
from fleet_protocol.errors import ProtocolError
from fleet_protocol.topics import (
    AVAILABILITY,
    COMMAND,
    DELEGATED,
    DEVICE_TOPICS,
    HEARTBEAT,
    MANIFEST,
    ROOT,
    STATE,
    TELEMETRY,
    TOPIC_TYPES,
    Side,
    Topics,
    TopicType,
)
from tests.fakes.documents import IDS

PREFIXES = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True), min_size=1, max_size=3).map("/".join)
VALUES = {
    "group": IDS,
    "device": IDS,
    "version": st.integers(1, 999_999_999).map(str),
    "role": st.from_regex(r"[A-Za-z0-9%._-]{1,40}", fullmatch=True),
}


def placeholders(kind: TopicType) -> list[str]:
    return [name for name in VALUES if f"{{{name}}}" in kind.pattern]


@given(prefix=PREFIXES, kind=st.sampled_from(TOPIC_TYPES), data=st.data())
def test_a_spelt_topic_is_read_back(prefix: str, kind: TopicType, data: st.DataObject) -> None:
    topics = Topics(prefix)
    values = {name: data.draw(VALUES[name]) for name in placeholders(kind)}
    address = topics.parse(topics.of(kind, **values))
    assert (address.type, dict(address.values)) == (kind, values)


@given(kind=st.sampled_from(TOPIC_TYPES), data=st.data())
def test_a_filter_matches_exactly_its_topics(kind: TopicType, data: st.DataObject) -> None:
    topics = Topics()
    other = data.draw(st.sampled_from(TOPIC_TYPES))
    values = {name: data.draw(VALUES[name]) for name in placeholders(other)}
    topic = topics.of(other, **values)
    assert _mqtt_match(topics.filter(kind), topic) == (kind is other)


def _mqtt_match(pattern: str, topic: str) -> bool:
    """MQTT's own matching of a filter without `#`."""
    left, right = pattern.split("/"), topic.split("/")
    return len(left) == len(right) and all(a in ("+", b) for a, b in zip(left, right, strict=True))


@given(st.text(max_size=60))
def test_any_text_is_a_topic_of_ours_or_a_code(text: str) -> None:
    for topic in (text, f"fleet/v1/{text}", f"fleet/v1/devices/{text}/state"):
        try:
            address = Topics().parse(topic)
        except ProtocolError as error:
            assert error.code == "schema"
        else:
            assert Topics().of(address.type, **address.values) == topic


@pytest.mark.parametrize("value", ["+", "#", "a/b", "", "..", "A", "a\0", "$SYS", "a" * 65])
def test_nothing_hostile_gets_into_a_topic(value: str) -> None:
    for kind, name in ((MANIFEST, "group"), (STATE, "device"), (ROOT, "version"), (COMMAND, "device")):
        with pytest.raises(ProtocolError):
            Topics().of(kind, **{name: value})
        with pytest.raises(ProtocolError):
            Topics().filter(kind, **{name: value})


@pytest.mark.parametrize("value", [0, -1, "01", "1.0", "1e3", 10**9, "\u0661", True])
def test_a_version_is_a_plain_positive_number(value: object) -> None:
    with pytest.raises(ProtocolError):
        Topics().of(ROOT, version=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["", "a/b", "+", "#", "a b", "ä", "x" * 257])
def test_a_role_name_is_one_level(role: str) -> None:
    with pytest.raises(ProtocolError):
        Topics().of(DELEGATED, role=role, version=1)


@pytest.mark.parametrize("prefix", ["", "/", "fleet/", "/fleet", "fleet//v1", "fleet/+", "#", "$SYS", "a b", "a\n"])
def test_a_prefix_is_plain_words(prefix: str) -> None:
    with pytest.raises(ProtocolError):
        Topics(prefix)


def test_the_rules_of_the_message_classes() -> None:
    assert len({kind.pattern for kind in TOPIC_TYPES}) == len(TOPIC_TYPES)
    assert {kind.name for kind in DEVICE_TOPICS if kind.retain} == {"availability", "state"}
    assert {kind.name for kind in TOPIC_TYPES if kind.publisher is Side.SERVER and not kind.retain} == {"command"}
    assert {kind.name for kind in TOPIC_TYPES if kind.qos == 0} == {HEARTBEAT.name, TELEMETRY.name}
    assert all(kind.qos in (0, 1) and 0 < kind.max_size <= limits.TARGETS_SIZE for kind in TOPIC_TYPES)
    assert all(kind.device_reads == (kind.publisher is Side.SERVER) for kind in TOPIC_TYPES)
    assert AVAILABILITY.max_size >= len(b"offline")
