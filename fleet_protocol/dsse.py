"""DSSE v1 envelopes on the wire (https://github.com/secure-systems-lab/dsse); needs only the standard library.

1. The size is checked before anything is read, and the JSON is strict.
2. base64 stands in its canonical form, so that no stray bits go unnoticed.

Who may sign, and whether they did, is `fleet_protocol.envelope`.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

from fleet_protocol import limits, strict_json
from fleet_protocol.errors import ProtocolError

MANIFEST_TYPE: Final = "application/vnd.fairlead.manifest.v1+json"
ASSIGNMENT_TYPE: Final = "application/vnd.fairlead.assignment.v1+json"
COMMAND_TYPE: Final = "application/vnd.fairlead.command.v1+json"
REPORT_TYPE: Final = "application/vnd.fairlead.report.v1+json"
_SIGNATURE_SIZE: Final = 1_024


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload, its type, and signatures that nobody has checked yet."""

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]
    """Pairs of key id and raw signature."""

    def encode(self) -> bytes:
        """The envelope's JSON; the same envelope gives the same bytes."""
        signatures = [{"keyid": keyid, "sig": _b64(sig)} for keyid, sig in self.signatures]
        document = {"payload": _b64(self.payload), "payloadType": self.payload_type, "signatures": signatures}
        return strict_json.dumps(document)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the bytes that are signed (DSSE v1, protocol.md)."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def decode(data: bytes, *, max_size: int) -> Envelope:
    """Read an envelope, or raise ProtocolError `size`, `parse` or `envelope`. Nothing is verified."""
    document = strict_json.loads(data, max_size=max_size, max_string=max_size)
    if not isinstance(document, dict) or set(document) != {"payload", "payloadType", "signatures"}:
        raise ProtocolError("envelope", "the members are not payload, payloadType and signatures")
    payload_type, rows = document["payloadType"], document["signatures"]
    if not isinstance(payload_type, str) or not isinstance(rows, list) or len(rows) > limits.SIGNATURES:
        raise ProtocolError("envelope", "payloadType or signatures is of the wrong form")
    return Envelope(_unb64(document["payload"]), payload_type, tuple(_signature(row) for row in rows))


def _signature(row: Any) -> tuple[str, bytes]:
    if not isinstance(row, dict) or not set(row) <= {"keyid", "sig"} or "sig" not in row:
        raise ProtocolError("envelope", "a signature is not keyid and sig")
    keyid = row.get("keyid", "")
    if not isinstance(keyid, str) or len(keyid) > 128:
        raise ProtocolError("envelope", "a key id is not a short string")
    sig = _unb64(row["sig"])
    if len(sig) > _SIGNATURE_SIZE:
        raise ProtocolError("envelope", "a signature is too long")
    return keyid, sig


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unb64(text: object) -> bytes:
    """Standard or URL-safe base64 with padding, as DSSE allows; one encoding of a value only."""
    if not isinstance(text, str):
        raise ProtocolError("envelope", "base64 is not a string")
    standard = text.replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(standard, validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("envelope", "not base64") from None
    if _b64(data) != standard:
        raise ProtocolError("envelope", "not canonical base64")
    return data
