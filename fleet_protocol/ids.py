"""Names of fleets, groups, devices, packages and deployments."""

import re
from typing import Final

from fleet_protocol.errors import ProtocolError

_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SALT: Final = re.compile(r"[0-9a-f]{8,64}")
_PATH_PART: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+~-]{0,127}")


def is_id(value: object) -> bool:
    """True for exactly the names `[a-z0-9][a-z0-9_-]{0,63}`; never raises."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def check_id(value: str, what: str = "id") -> str:
    """Return `value` unchanged, or raise ProtocolError `schema` naming `what`.

    The grammar has no `/`, `+`, `#`, `.`, space or upper case, so that an id is safe in a
    topic, a file name, an HTTP path, a certificate name and an argument vector.
    """
    if not is_id(value):
        raise ProtocolError("schema", f"{what} {shown(value)} is not of the form [a-z0-9][a-z0-9_-]{{0,63}}")
    return value


def check_version(value: str) -> str:
    """Return a version for people (at most 64 characters, no separators), or raise `schema`."""
    return _matching(_VERSION, value, "version")


def check_sha256(value: str) -> str:
    """Return 64 lower-case hexadecimal digits, or raise ProtocolError `schema`."""
    return _matching(_SHA256, value, "sha256")


def check_salt(value: str) -> str:
    """Return a deployment's salt (8 to 64 lower-case hexadecimal digits), or raise `schema`."""
    return _matching(_SALT, value, "salt")


def check_target_path(value: str) -> str:
    """Return a catalogue path of one to four safe parts joined by `/`, or raise `schema`.

    No part may start with a dot, so that `..` cannot occur.
    """
    parts = value.split("/")
    if not 1 <= len(parts) <= 4 or not all(_PATH_PART.fullmatch(part) for part in parts):
        raise ProtocolError("schema", f"target path {shown(value)} is not a plain relative path")
    return value


def shown(value: object) -> str:
    """A peer's value for a message or a log line: quoted, printable ASCII, at most 80 characters."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _matching(pattern: re.Pattern[str], value: str, what: str) -> str:
    if pattern.fullmatch(value) is None:
        raise ProtocolError("schema", f"{what} {shown(value)} does not match {pattern.pattern}")
    return value
