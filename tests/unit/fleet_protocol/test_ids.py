"""The id grammar: what passes is safe in a topic, a path, a certificate and an argument vector."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import check_id, check_salt, check_sha256, check_target_path, check_version, is_id, shown
from tests.fakes.documents import IDS, PATHS, SALTS, SHA256, VERSIONS

HOSTILE = [
    "",
    "A",
    "-a",
    "_a",
    ".",
    "..",
    "a.b",
    "a/b",
    "a+b",
    "#",
    "+",
    "$SYS",
    "a b",
    "a\n",
    "a\0",
    "a" * 65,
    "ä",
    "а",
    "\u0661",
    "a\u0301",
    "~",
    "%2e",
    "a'; rm",
    "--help",
]


@given(IDS)
def test_ids_pass_unchanged(value: str) -> None:
    assert is_id(value)
    assert check_id(value) is value


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_are_refused(value: str) -> None:
    assert not is_id(value)
    with pytest.raises(ProtocolError) as caught:
        check_id(value, "device")
    assert caught.value.code == "schema"
    assert caught.value.detail.startswith("device ")
    assert caught.value.detail.isascii()


@given(st.text(max_size=70))
def test_the_grammar_is_exactly_the_documented_one(value: str) -> None:
    assert is_id(value) == bool(re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", value, re.ASCII))


@pytest.mark.parametrize("value", [None, 1, True, b"a", ["a"], {"a": 1}])
def test_what_is_no_string_is_no_id(value: object) -> None:
    assert not is_id(value)


@given(version=VERSIONS, sha256=SHA256, salt=SALTS, path=PATHS)
def test_the_other_grammars_pass_their_own(version: str, sha256: str, salt: str, path: str) -> None:
    assert check_version(version) == version
    assert check_sha256(sha256) == sha256
    assert check_salt(salt) == salt
    assert check_target_path(path) == path


@pytest.mark.parametrize(
    "value",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "./a",
        "../a",
        "a/..",
        "a/.b",
        ".a",
        "a/b/c/d/e",
        "a\\b",
        "a b",
        "a\n",
        "ä/b",
        "x" * 129,
    ],
)
def test_hostile_paths_are_refused(value: str) -> None:
    with pytest.raises(ProtocolError):
        check_target_path(value)


@pytest.mark.parametrize("value", ["", "A" * 64, "a" * 63, "a" * 65, "g" * 64, "a" * 64 + "\n", "\uff41" * 64])
def test_other_digests_are_refused(value: str) -> None:
    with pytest.raises(ProtocolError):
        check_sha256(value)


@pytest.mark.parametrize("value", ["", "a" * 7, "a" * 65, "A" * 8, "6f2c9e0g"])
def test_other_salts_are_refused(value: str) -> None:
    with pytest.raises(ProtocolError):
        check_salt(value)


@pytest.mark.parametrize("value", ["", "../1", "1/2", "-1", ".1", "1 2", "1\n", "1" * 65, "v1\u0660"])
def test_other_versions_are_refused(value: str) -> None:
    with pytest.raises(ProtocolError):
        check_version(value)


@given(st.text() | st.binary() | st.integers() | st.none())
def test_what_is_shown_is_one_short_printable_line(value: object) -> None:
    text = shown(value)
    assert len(text) <= 80
    assert text.isascii()
    assert text.isprintable()
