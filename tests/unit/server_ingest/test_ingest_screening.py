"""Rules of server/services/ingest_screening.py, cited by number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.errors import ProtocolError
from fleet_protocol.messages import Reply
from fleet_protocol.payload import to_payload
from fleet_protocol.topics import (
    AVAILABILITY,
    DEVICE_TOPICS,
    HEALTH,
    HEARTBEAT,
    REPLY,
    REPORT,
    STATE,
    TELEMETRY,
    TopicType,
)
from server.services.ingest_screening import Screened, screen
from tests.fakes.reporting import Post

ANSWER = to_payload(Reply(id="c-1", code=None, detail="", result={}))
HEALTHY = b'{"time":1,"verdict":"ok","checks":[{"name":"cpu","value":1.5}]}'


def screened(kind: TopicType, payload: bytes) -> Screened | None:
    return screen(Post().message(kind, payload, at_s=5_000.0))


@pytest.mark.parametrize("kind", DEVICE_TOPICS, ids=lambda kind: kind.name)
def test_rule_1_the_size_comes_first(kind: TopicType) -> None:
    with pytest.raises(ProtocolError) as caught:
        screened(kind, b"{" * (kind.max_size + 1))
    assert caught.value.code == "size"


def test_rule_2_availability_is_one_of_two_words() -> None:
    for good in (b"online", b"offline"):
        assert screened(AVAILABILITY, good) is not None
    for bad in (b"Online", b"online\n", b' "online"', b"\xff", b"0"):
        with pytest.raises(ProtocolError) as caught:
            screened(AVAILABILITY, bad)
        assert caught.value.code == "schema"


@pytest.mark.parametrize("kind", [AVAILABILITY, STATE])
def test_rule_3_a_cleared_topic_says_nothing(kind: TopicType) -> None:
    assert screened(kind, b"") is None


@pytest.mark.parametrize(
    ("altered", "code"),
    [
        (b"{", "parse"),
        (b"[]", "schema"),
        (ANSWER.replace(b"fairlead.reply", b"fairlead.report"), "type"),
        (ANSWER.replace(b"c-1", b"../x"), "schema"),
        (ANSWER.replace(b'"code":null', b'"code":7'), "schema"),
        (ANSWER.replace(b'"code":null', b'"code":"no-such-code"'), "schema"),
        (ANSWER.replace(b'"result":{}', b'"result":"no"'), "schema"),
        (ANSWER.replace(b'"v":1', b'"v":1,"w":1'), "schema"),
    ],
)
def test_rule_4_a_reply_is_one(altered: bytes, code: str) -> None:
    assert screened(REPLY, ANSWER) is not None
    with pytest.raises(ProtocolError) as caught:
        screened(REPLY, altered)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "parse"),
        (b"{", "parse"),
        (b'{"a":1,"a":2}', "parse"),
        (b'{"a":NaN}', "parse"),
        (b'\xef\xbb\xbf{"a":1}', "parse"),
        (b'{"a":"\\ud800"}', "parse"),
        (b"[" * 500, "parse"),
        (b"[]", "schema"),
        (b'"x"', "schema"),
        (b'{"a":{"b":1}}', "schema"),
        (b'{"a":[1]}', "schema"),
    ],
)
@pytest.mark.parametrize("kind", [HEARTBEAT, TELEMETRY])
def test_rule_4_samples_are_flat_objects_in_strict_json(kind: TopicType, payload: bytes, code: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        screened(kind, payload)
    assert caught.value.code == code


def test_rule_4_unknown_members_are_kept() -> None:
    assert screened(TELEMETRY, b'{"cpu_percent":12.5,"of_a_newer_agent":null}') is not None


@pytest.mark.parametrize("payload", [b"{}", b'{"verdict":"fine","checks":[]}', b'{"verdict":"ok","checks":{}}'])
def test_rule_4_health_has_a_verdict_and_checks(payload: bytes) -> None:
    assert screened(HEALTH, HEALTHY) is not None
    with pytest.raises(ProtocolError) as caught:
        screened(HEALTH, payload)
    assert caught.value.code == "schema"


@pytest.mark.parametrize(
    ("kind", "payload", "seen_s"),
    [
        (HEARTBEAT, b'{"time":1}', 5_000.0),
        (TELEMETRY, b"{}", 5_000.0),
        (HEALTH, HEALTHY, 5_000.0),
        (REPLY, ANSWER, 5_000.0),
        (REPORT, b"{}", 5_000.0),
        (STATE, b'{"time":4000}', 4_000.0),
        (STATE, b'{"time":9000.5}', 5_000.0),
        (STATE, b'{"time":true}', None),
        (STATE, b'{"time":"4000"}', None),
        (STATE, b"{}", None),
        (AVAILABILITY, b"online", None),
        (AVAILABILITY, b"offline", None),
    ],
)
def test_rule_5_what_proves_that_a_device_lived_and_when(kind: TopicType, payload: bytes, seen_s: float | None) -> None:
    found = screened(kind, payload)
    assert found is not None
    assert (found.device, found.kind, found.seen_s) == ("node-1", kind.name, seen_s)


@given(st.sampled_from(DEVICE_TOPICS), st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_protocol_error(kind: TopicType, payload: bytes) -> None:
    try:
        screened(kind, payload)
    except ProtocolError as error:
        assert error.code in ("size", "parse", "schema")
