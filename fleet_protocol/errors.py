"""Errors by whose fault they are, each with a stable code.

A code is part of the public contract: it travels in reports, counters, `state.why`
and HTTP bodies, and is listed in `docs/errors.md`. Codes are added, never renamed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final


class Fault(StrEnum):
    """Whose fault an error is, which decides what happens next."""

    PROTOCOL = "protocol"
    """The peer's bytes: drop, count, report. Never retried."""
    TRANSPORT = "transport"
    """The network or a busy peer: retry with backoff. Never spends an attempt."""
    INSTALL = "install"
    """This device could not take the release: undo, spend an attempt, report."""
    POLICY = "policy"
    """The operator asked for what may not be: HTTP 4xx, one line at the CLI."""


@dataclass(frozen=True, slots=True)
class Code:
    """A stable code, whose fault it names, and what a person should make of it."""

    name: str
    fault: Fault
    meaning: str


def _table(fault: Fault, rows: Mapping[str, str]) -> dict[str, Code]:
    return {name: Code(name, fault, meaning) for name, meaning in rows.items()}


CODES: Final[Mapping[str, Code]] = {
    **_table(
        Fault.PROTOCOL,
        {
            "size": "the message is larger than its topic allows",
            "envelope": "the bytes are not a DSSE envelope",
            "type": "the document is of another type than its place asks for",
            "signature": "no signature verifies under a key that the role lists",
            "threshold": "fewer distinct keys signed than the role asks for",
            "parse": "the payload is not strict JSON",
            "schema": "a field is missing, unknown, of the wrong type or out of bounds",
            "scope": "the document is for another fleet, group or device",
            "expired": "the document is past its expiry by the device's trusted time",
            "replay": "the document is older than one already obeyed",
            "equivocation": "two different documents carry one sequence",
            "root": "the root document breaks the rules of the root chain",
            "untrusted": "the trust store or its floors are missing or torn",
            "metadata": "the catalogue's metadata does not verify",
            "mismatch": "the manifest and the catalogue disagree about a target",
            "unlisted": "the release is not in the catalogue",
            "class": "the release is for other hardware",
            "floor": "the release is below the floor that the catalogue sets",
            "downgrade": "the release is older than what is installed, without a recall",
            "precursor": "a delta does not apply to what is installed",
            "requires": "a dependency is unlisted or does not match",
            "url": "a source's address is not allowed",
            "digest": "the bytes are not the ones that were signed",
            "format": "the artifact is not of its signed format",
            "archive": "the archive holds what may not be unpacked",
            "command": "the command is unknown, expired or was already carried out",
        },
    ),
    **_table(
        Fault.TRANSPORT,
        {
            "unreachable": "no connection could be made",
            "timeout": "the peer did not answer in time",
            "slow": "the transfer fell below the minimum rate or passed its deadline",
            "busy": "the peer asked to come back later (HTTP 429 or 503)",
            "refused": "the peer answered with an error",
            "truncated": "the transfer ended early",
            "absent": "a retained document is not there yet",
        },
    ),
    **_table(
        Fault.INSTALL,
        {
            "no-space": "the disk is too full to download or install",
            "read-only": "the file system cannot be written",
            "io": "the file system reported an error",
            "occupied": "the slot that should be written is the active one",
            "start": "the new release could not be started",
            "unhealthy": "a health check failed during probation",
            "crashed": "the new release stopped during probation",
            "interrupted": "power or the agent was lost before the commit",
            "altered": "what was written is not what was verified",
            "no-fallback": "there is nothing to go back to",
            "unsupported": "this device has no installer for the kind",
            "kernel": "the release has no driver for the kernel that runs",
            "in-use": "the driver that would be replaced is in use",
            "locked": "another program holds the package manager",
            "dependencies": "the packages need others that the release does not bring, or would remove some",
            "no-way-back": "this device could not go back, and the manifest does not say that it need not",
            "masked": "the owner of the device has masked the unit, or blacklisted the module",
            "worker": "the worker process died without an answer",
            "no-memory": "the device has too little memory for a worker, or killed it",
            "withdrawn": "the release was recalled, or an operator ordered the device back",
        },
    ),
    **_table(
        Fault.POLICY,
        {
            "bad-request": "the request is not of its documented form",
            "unauthorized": "the token is missing, wrong, or may only enrol devices",
            "unknown-node": "no device of that name is enrolled",
            "unknown-group": "no group of that name exists",
            "unknown-update": "no update job of that name exists",
            "unknown-release": "the release is not in the catalogue",
            "unknown-artifact": "no artifact with that digest is stored",
            "unknown-service": "the device has no service of that name",
            "conflict": "the request contradicts what already is",
            "wrong-state": "the job's state does not allow that verb",
            "catalogue": "the uploaded catalogue does not verify",
            "database": "the database holds what this version cannot read",
            "internal": "the server failed by a defect of its own; its log has the details",
            "keys": "a key is missing, unreadable or protected by another passphrase",
            "offline": "the device did not answer in time",
            "too-large": "the upload is larger than the server takes",
            "setup": "this machine lacks something that is needed",
        },
    ),
}


class FleetError(Exception):
    """An error with a stable code of this class's fault and one line of detail for people."""

    fault: ClassVar[Fault]

    def __init__(self, code: str, detail: str = "") -> None:
        if CODES[code].fault is not self.fault:
            raise ValueError(f"code {code} is not a {self.fault} code")
        super().__init__(f"{code}: {detail or CODES[code].meaning}")
        self.code = code
        self.detail = detail or CODES[code].meaning


class ProtocolError(FleetError):
    """The peer's bytes are not acceptable: drop them, count the code, report it."""

    fault = Fault.PROTOCOL


class TransportError(FleetError):
    """The network failed: retry later. `retry_after_s` is the peer's own wish, if it had one."""

    fault = Fault.TRANSPORT

    def __init__(self, code: str, detail: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(code, detail)
        self.retry_after_s = retry_after_s


class InstallError(FleetError):
    """This device could not take the release: undo and report."""

    fault = Fault.INSTALL


class PolicyError(FleetError):
    """The operator's request may not be carried out."""

    fault = Fault.POLICY


_BY_FAULT: Final[Mapping[Fault, type[FleetError]]] = {
    kind.fault: kind for kind in (ProtocolError, TransportError, InstallError, PolicyError)
}


def error_of(code: str, detail: str = "") -> FleetError:
    """The error of the right class for `code`, as read back from another process's answer."""
    return _BY_FAULT[CODES[code].fault](code, detail)
