"""Texts for systemd: what comes from a release or an owner arrives as it is, and can say nothing else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.installers.unit_text import Program, drop_in, program_unit, quoted, whole_line
from fleet_protocol.errors import InstallError
from fleet_protocol.unit_file import read_unit_file
from tests.fakes.systemd_programs import words

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


def program(**changes: object) -> Program:
    given_: dict[str, object] = {
        "name": "app",
        "exec": ("/bin/app",),
        "directory": "/slot",
        "environment": {"A": "1"},
        "stop_s": 7,
    }
    return Program(**(given_ | changes))  # type: ignore[arg-type]


def value(text: str, key: str) -> str:
    """The value of a directive that stands once."""
    (found,) = [one.value for one in read_unit_file(text.encode()).directives if one.key == key]
    return found


@given(TEXTS)
def test_a_quoted_word_comes_out_as_it_went_in(text: str) -> None:
    assert words(quoted(text)) == [text]
    assert "\n" not in quoted(text)


@given(st.lists(TEXTS, max_size=4), TEXTS)
def test_arguments_and_variables_come_out_as_they_went_in(arguments: list[str], setting: str) -> None:
    text = program_unit(program(exec=("/bin/app", *arguments), environment={"X": setting}), user=False, backoff=False)
    command = value(text, "ExecStart")
    assert command.startswith(":"), "systemd looks for no variables in it"
    assert words(command[1:]) == ["/bin/app", *arguments]
    assert words(value(text, "Environment")) == [f"X={setting}"]
    assert len(read_unit_file(text.encode()).directives) == len(
        read_unit_file(program_unit(program(), user=False, backoff=False).encode()).directives
    )


@pytest.mark.parametrize("text", ["a\nUser=root", " a", "a ", "a\\", "a\x07"])
def test_a_path_that_a_line_can_not_hold_is_refused(text: str) -> None:
    with pytest.raises(InstallError) as refused:
        whole_line(text)
    assert refused.value.code == "start"


def test_a_program_runs_for_ever() -> None:
    text = program_unit(program(), user=False, backoff=True)
    assert value(text, "Restart") == "always"
    assert value(text, "RestartMaxDelaySec") == "60"
    assert value(text, "TimeoutStopSec") == "7"
    assert value(text, "KillMode") == "control-group"
    assert value(text, "StartLimitIntervalSec") == "0"
    assert value(text, "WantedBy") == "multi-user.target"
    assert "RestartSteps" not in program_unit(program(), user=False, backoff=False)
    assert value(program_unit(program(), user=True, backoff=False), "WantedBy") == "default.target"


def test_a_drop_in_waits_for_the_disk_and_for_the_agent() -> None:
    text = drop_in(state_dir=Path("/srv/my state"), guard=Path("/srv/100%/quiet"), environment={"V": "1 2"})
    lines = text.splitlines()
    assert 'RequiresMountsFor="/srv/my state"' in lines
    assert "ConditionPathExists=!/srv/100%%/quiet" in lines
    assert 'Environment="V=1 2"' in lines
