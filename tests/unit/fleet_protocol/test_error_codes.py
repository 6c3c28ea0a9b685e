"""Codes are the public contract: stable, of one fault each, explained in one line."""

import re

import pytest

from fleet_protocol.errors import (
    CODES,
    Fault,
    FleetError,
    InstallError,
    PolicyError,
    ProtocolError,
    TransportError,
    error_of,
)

CLASSES = {
    Fault.PROTOCOL: ProtocolError,
    Fault.TRANSPORT: TransportError,
    Fault.INSTALL: InstallError,
    Fault.POLICY: PolicyError,
}


@pytest.mark.parametrize("name", sorted(CODES))
def test_a_code_is_a_short_word_with_a_meaning(name: str) -> None:
    code = CODES[name]
    assert code.name == name
    assert re.fullmatch(r"[a-z][a-z-]{1,30}", name)
    assert code.meaning
    assert "\n" not in code.meaning


@pytest.mark.parametrize("name", sorted(CODES))
def test_an_error_has_the_class_of_its_fault(name: str) -> None:
    error = error_of(name, "why")
    assert type(error) is CLASSES[CODES[name].fault]
    assert (error.code, error.detail, str(error)) == (name, "why", f"{name}: why")
    assert error_of(name).detail == CODES[name].meaning


@pytest.mark.parametrize("kind", CLASSES.values())
def test_a_code_of_another_fault_cannot_be_raised(kind: type[FleetError]) -> None:
    for code in CODES.values():
        if code.fault is not kind.fault:
            with pytest.raises(ValueError, match=code.name):
                kind(code.name)


def test_no_two_faults_share_a_code() -> None:
    assert len({code.name for code in CODES.values()}) == len(CODES)


def test_a_peers_wish_to_wait_is_kept() -> None:
    assert TransportError("busy", retry_after_s=3.5).retry_after_s == 3.5
    assert TransportError("busy").retry_after_s is None


def test_codes_that_devices_in_the_field_know_are_never_renamed() -> None:
    """The list grows; nothing ever leaves it."""
    known = (
        "size envelope type signature threshold parse schema scope expired replay equivocation root untrusted metadata"
    )
    known += " mismatch unlisted class floor downgrade precursor requires url digest format archive command"
    known += " unreachable timeout slow busy refused truncated absent"
    known += (
        " no-space read-only io occupied start unhealthy crashed interrupted altered no-fallback unsupported worker"
    )
    known += " withdrawn bad-request unauthorized unknown-node unknown-group unknown-update unknown-release"
    known += " unknown-artifact unknown-service conflict wrong-state catalogue keys offline too-large setup"
    assert set(known.split()) <= set(CODES)
