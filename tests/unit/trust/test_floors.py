"""device_agent.trust.floors, rule by rule."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.trust.floors import COMMANDS_MOST, GROUPS_MOST, Commands, Floors, decode, encode
from fleet_protocol.acceptance import Mark
from fleet_protocol.envelope import KeySet, public_value
from fleet_protocol.errors import ProtocolError
from fleet_protocol.limits import JSON_INTEGER
from tests.fakes.trust_fleet import ed25519

DIGEST = "ab" * 32
numbers = st.integers(min_value=0, max_value=JSON_INTEGER)
names = st.text("abcdefgh-0123", min_size=1, max_size=8)
voters = st.frozensets(names, max_size=3)
marks = st.builds(Mark, sequence=numbers, digest=st.just(DIGEST), voters=voters)
floors = st.builds(
    Floors,
    anchor=st.just(DIGEST),
    generation=numbers,
    files=st.dictionaries(names, st.just(DIGEST), max_size=4),
    time_s=numbers,
    time_voters=voters,
    group=st.none() | names,
    assignment=st.none() | marks,
    manifests=st.dictionaries(names, marks, max_size=4),
    commands=st.builds(Commands, done=st.dictionaries(names, numbers, max_size=4), floor_s=numbers, voters=voters),
)


@given(floors)
def test_what_is_written_is_read_in_the_same_order(written: Floors) -> None:
    read = decode(encode(written))
    assert read == written
    assert list(read.manifests) == list(written.manifests)


@given(floors, st.data())
def test_rule_1_any_altered_byte_is_noticed(written: Floors, data: st.DataObject) -> None:
    good = bytearray(encode(written))
    place = data.draw(st.integers(min_value=0, max_value=len(good) - 2))
    good[place] ^= data.draw(st.integers(min_value=1, max_value=255))
    with pytest.raises(ProtocolError, match="untrusted"):
        decode(bytes(good))


@given(floors, st.data())
def test_rule_1_any_missing_part_is_noticed(written: Floors, data: st.DataObject) -> None:
    good = encode(written)
    with pytest.raises(ProtocolError, match="untrusted"):
        decode(good[: data.draw(st.integers(min_value=0, max_value=len(good) - 2))])


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b'{"floors": {}, "sha256": "0"}', b'{"floors": 1}'])
def test_rule_1_other_content_is_noticed(content: bytes) -> None:
    with pytest.raises(ProtocolError, match="untrusted"):
        decode(content)


def test_rule_1_nothing_stands_beside_what_the_checksum_covers() -> None:
    held = encode(Floors(anchor=DIGEST))
    assert decode(held) == Floors(anchor=DIGEST)
    with pytest.raises(ProtocolError, match="untrusted"):
        decode(held.replace(b'"sha256"', b'"more":1,"sha256"'))


def test_rule_1_equal_floors_are_equal_bytes() -> None:
    """Whatever order a set has in this process: what is written again does not look altered."""
    keys = [f"ed25519:{number:064x}" for number in range(40)]
    mark = Mark(sequence=1, digest=DIGEST, voters=frozenset(keys))
    held = Floors(anchor=DIGEST, time_voters=mark.voters, assignment=mark, commands=Commands(voters=mark.voters))
    content = json.loads(encode(held))["floors"]
    assert content["time"]["voters"] == content["assignment"]["voters"] == content["commands"]["voters"] == keys


def test_a_fresh_device_has_carried_out_and_refuses_nothing() -> None:
    assert (Commands().done, Commands().floor_s, Commands().voters) == ({}, 0, frozenset())


def _role(threshold: int) -> tuple[KeySet, list[str]]:
    signers = ed25519(3)
    role = KeySet(threshold, {signer.public_key.keyid: signer.public_key for signer in signers})
    return role, [public_value(signer.public_key) for signer in signers]


def test_rule_3_a_mark_stands_while_enough_of_its_keys_hold_the_role() -> None:
    role, keys = _role(2)
    both = Mark(sequence=9, digest=DIGEST, voters=frozenset(keys[:2]))
    half = replace(both, voters=frozenset([keys[0], "ed25519:gone"]))
    kept = Floors(
        anchor=DIGEST,
        time_s=5,
        time_voters=both.voters,
        assignment=both,
        manifests={"one": both, "two": half},
        commands=Commands(done={"c": 1}, floor_s=1, voters=half.voters),
    ).under(role)
    assert (kept.time_s, kept.assignment, dict(kept.manifests)) == (5, both, {"one": both})
    assert kept.commands == Commands()
    gone = replace(kept, time_voters=half.voters, assignment=half).under(role)
    assert (gone.time_s, gone.assignment) == (0, None)


def test_rule_4_the_commands_that_expire_first_are_forgotten_and_stay_refused() -> None:
    commands = Commands()
    for number in range(COMMANDS_MOST + 10):
        commands = commands.with_done(f"c-{number}", 1_000 + number, frozenset({"key"}))
    assert len(commands.done) == COMMANDS_MOST
    assert commands.floor_s == 1_009
    assert min(commands.done.values()) == 1_010
    early = commands.with_done("early", 1, frozenset({"key"}))
    assert "early" not in early.done
    assert early.floor_s == 1_009


def test_the_group_longest_unused_is_forgotten_first() -> None:
    mark = Mark(sequence=1, digest=DIGEST, voters=frozenset())
    held = Floors(anchor=DIGEST)
    for number in range(GROUPS_MOST):
        held = held.with_manifest(f"g-{number}", mark)
    held = held.with_manifest("g-0", replace(mark, sequence=2)).with_manifest("new", mark)
    assert len(held.manifests) == GROUPS_MOST
    assert "g-1" not in held.manifests
    assert held.manifests["g-0"].sequence == 2


@given(st.lists(st.tuples(numbers, voters), max_size=20))
def test_the_time_floor_never_falls(told: list[tuple[int, frozenset[str]]]) -> None:
    held, highest = Floors(anchor=DIGEST), 0
    for time_s, who in told:
        held = held.with_time(time_s, who)
        highest = max(highest, time_s)
        assert held.time_s == highest
