"""Options, durations, bars and strangers' text."""

import pytest

from fleet_protocol.errors import FleetError
from server.cli import printable, tables
from server.cli.options import names, percentages
from server.cli.watch import pause_s


def test_percentages_are_the_requests_waves() -> None:
    assert percentages("5, 25%,100") == [5.0, 25.0, 100.0]
    assert percentages("0.5") == [0.5]


@pytest.mark.parametrize("text", ["", "x", "5;25", "-1,100", "25,5", "100.1", "nan", "inf", "5,,25"])
def test_other_percentages_are_refused(text: str) -> None:
    with pytest.raises(FleetError) as caught:
        percentages(text)
    assert caught.value.code == "bad-request"


def test_names_are_ids() -> None:
    assert names("node-1, node-2,") == ["node-1", "node-2"]
    for text in ("", ",", "Node", "a b", "a/b"):
        with pytest.raises(FleetError):
            names(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 d")]
)
def test_ages(seconds: float, text: str) -> None:
    assert tables.age(seconds) == text


def test_who_watches_takes_a_tenth_of_the_servers_time_at_most() -> None:
    assert pause_s(0.0) == pause_s(0.05) == 1.0
    assert (pause_s(2.0), pause_s(60.0)) == (20.0, 30.0)


def test_bars_are_as_wide_as_they_are_full() -> None:
    assert tables.bar(1, 1, 4, fancy=False).plain == "#" * 10 + "x" * 10 + "." * 20 + " 1/4"
    assert tables.bar(0, 0, 0, fancy=True).plain == "░" * 40 + " 0/0"
    assert tables.bar(4, 4, 4, fancy=False).plain == "#" * 40 + " 4/4"


def test_control_characters_are_shown_as_something_else() -> None:
    assert printable.text("a\x1b[2Jb\x9bc\x00\u202e\n") == "a\ufffd[2Jb\ufffdc\ufffd\ufffd\ufffd"
    assert printable.line(" two\n lines\tof  text ") == "two lines of text"
    assert printable.text("größe ▲ 大") == "größe ▲ 大"
