"""What the unit file of a release may say."""

import pytest

from fleet_protocol.unit_file import SIZE, Directive, UnitFileError, read_unit_file

GOOD = b"""# a comment
[Unit]
Description=one \\
; in between
 two
[Service]
ExecStartPre=-"@SLOT@/bin/set up" now
ExecStart=@SLOT@/bin/run --port @PORT@ user@host.example @reboot
SystemCallFilter=@system-service @network-io
[Install]
WantedBy=multi-user.target extra.target
RequiredBy=other.service
Alias=also-called.service
WantedBy=%i.target
"""


def test_a_unit_is_read_as_systemd_reads_it() -> None:
    found = read_unit_file(GOOD)
    assert found.directives[0] == Directive("Unit", "Description", "one   two")
    assert found.tokens == ("PORT",)
    assert found.programs == ("bin/set up", "bin/run")
    assert found.links("a.service") == {
        "multi-user.target.wants/a.service",
        "extra.target.wants/a.service",
        "other.service.requires/a.service",
        "also-called.service",
    }


@pytest.mark.parametrize(
    ("command", "programs"),
    [
        ("@SLOT@/run", ("run",)),
        ("@@SLOT@/run other-name", ("run",)),
        ("-:!!@SLOT@/run", ("run",)),
        ("/bin/sh @SLOT@/run", ()),
        ("@SLOT@", ()),
    ],
)
def test_programs_of_the_release_are_found(command: str, programs: tuple[str, ...]) -> None:
    assert read_unit_file(f"[Service]\nExecStart={command}\n".encode()).programs == programs


def test_tokens_are_filled_in_once_and_stay_data() -> None:
    found = read_unit_file(GOOD).filled({"SLOT": "/state/100%", "PORT": "@SLOT@"})
    assert "ExecStart=/state/100%%/bin/run --port @SLOT@ user@host.example @reboot" in found
    assert "SystemCallFilter=@system-service @network-io" in found


@pytest.mark.parametrize(
    ("values", "names"),
    [({"SLOT": "/x"}, "PORT"), ({"SLOT": "/x", "PORT": "1\nUser=root"}, "PORT"), ({"PORT": "1"}, "SLOT")],
)
def test_a_token_that_can_not_be_filled_in_is_refused(values: dict[str, str], names: str) -> None:
    with pytest.raises(UnitFileError, match=names):
        read_unit_file(GOOD).filled(values)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (b"", "ExecStart="),
        (b"[Unit]\nExecStart=/bin/x\n", "ExecStart="),
        (b"[Service]\nExecStart=\n", "ExecStart="),
        (b"[Service]\nExecStart=/bin/x\nnonsense\n", "nonsense"),
        (b"[Service]\nExecStart=/bin/\xff\n", "UTF-8"),
        (b"[Service]\nExecStart=/bin/x\0\n", "NUL"),
        (b"[Service]\nExecStart=/bin/x\n[Install]\nAlso=other.socket\n", "Also="),
        (b"[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=/bin/x\n", "RefuseManualStop="),
        (b"#" * (SIZE + 1), "bytes"),
    ],
)
def test_what_breaks_a_rule_is_refused(text: bytes, names: str) -> None:
    with pytest.raises(UnitFileError, match=names):
        read_unit_file(text)
