"""A variable that is spelt wrongly is named, with what it may have been meant to be."""

import pytest

from server.settings import Settings
from server.variables import unread


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FAIRLEAD_COMAND_TIMEOUT_S", "FAIRLEAD_COMMAND_TIMEOUT_S"),
        ("FAIRLEAD_COMMAND_TIMEOUT", "FAIRLEAD_COMMAND_TIMEOUT_S"),
        ("FAIRLEAD_TOKN", "FAIRLEAD_TOKEN"),
        ("fairlead_prot", "FAIRLEAD_PORT"),
    ],
)
def test_a_slip_is_named_with_the_nearest(name: str, meant: str) -> None:
    (line,) = unread(["PATH", name, "FAIRLEAD_PORT"], Settings.model_fields)
    assert line == f"the variable {name} is not read by anything: do you mean {meant}?"


def test_what_is_near_nothing_is_named_alone() -> None:
    assert unread(["FAIRLEAD_XYZZY"], Settings.model_fields) == ["the variable FAIRLEAD_XYZZY is not read by anything"]


def test_whatever_is_read_is_known() -> None:
    read = [f"FAIRLEAD_{name.upper()}" for name in Settings.model_fields]
    read += [
        "FAIRLEAD_SERVER",
        "FAIRLEAD_TOKEN",
        "FAIRLEAD_CA_FILE",
        "fairlead_port",
        "FAIRLEADER",
        "_FAIRLEAD_COMPLETE",
    ]
    assert unread(read, Settings.model_fields) == []
