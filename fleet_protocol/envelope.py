"""DSSE v1 envelopes: signing beside verification (https://github.com/secure-systems-lab/dsse).

Keys and signers are securesystemslib's, so that a key may live in a file, a KMS or a token.
What is different from securesystemslib's own envelope: one vote per *public key value*, a
size cap, and a strict parser.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer._key import Key
from securesystemslib.signer._signature import Signature
from securesystemslib.signer._signer import Signer

from fleet_protocol import limits, strict_json
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown

MANIFEST_TYPE: Final = "application/vnd.fairlead.manifest.v1+json"
ASSIGNMENT_TYPE: Final = "application/vnd.fairlead.assignment.v1+json"
COMMAND_TYPE: Final = "application/vnd.fairlead.command.v1+json"
REPORT_TYPE: Final = "application/vnd.fairlead.report.v1+json"


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one role and how many distinct ones must sign."""

    threshold: int
    keys: Mapping[str, Key]

    def __post_init__(self) -> None:
        values = self.values()
        if len(values) != len(self.keys):
            raise ProtocolError("threshold", "the role lists one public key under two key ids")
        if type(self.threshold) is not int or not 1 <= self.threshold <= len(values):
            raise ProtocolError("root", f"threshold {shown(self.threshold)} of {len(values)} keys")

    def values(self) -> set[bytes]:
        """The distinct public keys, each in its one canonical encoding, whatever spelling the role uses."""
        return {_value(key) for key in self.keys.values()}


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


def sign(payload: bytes, payload_type: str, signers: Iterable[Signer]) -> Envelope:
    """An envelope that carries one signature of each signer, in the order given."""
    data = pae(payload_type, payload)
    signatures = [signer.sign(data) for signer in signers]
    return Envelope(payload, payload_type, tuple((s.keyid, bytes.fromhex(s.signature)) for s in signatures))


def decode(data: bytes, *, max_size: int) -> Envelope:
    """Read an envelope, or raise ProtocolError `size`, `parse` or `envelope`. Nothing is verified."""
    document = strict_json.loads(data, max_size=max_size)
    if not isinstance(document, dict) or set(document) != {"payload", "payloadType", "signatures"}:
        raise ProtocolError("envelope", "the members are not payload, payloadType and signatures")
    payload_type, rows = document["payloadType"], document["signatures"]
    if not isinstance(payload_type, str) or not isinstance(rows, list) or len(rows) > limits.SIGNATURES:
        raise ProtocolError("envelope", "payloadType or signatures is of the wrong form")
    return Envelope(_unb64(document["payload"]), payload_type, tuple(_signature(row) for row in rows))


def verify(envelope: Envelope, payload_type: str, role: KeySet) -> bytes:
    """Return the payload once `role.threshold` distinct public keys have signed it.

    Raises ProtocolError `type` where the payload is of another type, `signature` where no listed
    key signed, `threshold` where too few distinct ones did.
    """
    if envelope.payload_type != payload_type:
        raise ProtocolError("type", f"payloadType {shown(envelope.payload_type)}, wanted {payload_type}")
    votes = _votes(envelope, role.keys)
    if not votes:
        raise ProtocolError("signature")
    if len(votes) < role.threshold:
        raise ProtocolError("threshold", f"{len(votes)} of {role.threshold} distinct keys signed")
    return envelope.payload


def _votes(envelope: Envelope, keys: Mapping[str, Key]) -> set[bytes]:
    data = pae(envelope.payload_type, envelope.payload)
    votes: set[bytes] = set()
    for keyid, sig in envelope.signatures:
        key = keys.get(keyid)
        if key is None:
            continue
        try:
            key.verify_signature(Signature(keyid, sig.hex()), data)
        except (UnverifiedSignatureError, VerificationError):
            continue
        votes.add(_value(key))
    return votes


def _value(key: Key) -> bytes:
    """The key itself: hexadecimal digits may be of either case and PEM may be wrapped anywhere."""
    try:
        public = key._crypto_key()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way to the key itself
        encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (AttributeError, KeyError, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ProtocolError("root", f"malformed key: {shown(str(error))}") from None
    return encoded


def _signature(row: Any) -> tuple[str, bytes]:
    if not isinstance(row, dict) or not set(row) <= {"keyid", "sig"} or "sig" not in row:
        raise ProtocolError("envelope", "a signature is not keyid and sig")
    keyid = row.get("keyid", "")
    if not isinstance(keyid, str) or len(keyid) > 128:
        raise ProtocolError("envelope", "a key id is not a short string")
    return keyid, _unb64(row["sig"])


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


def key_set(threshold: int, keys: Mapping[str, Any], keyids: Sequence[str] | None = None) -> KeySet:
    """A KeySet of TUF key dictionaries by key id; raises ProtocolError `root` on a malformed one."""
    wanted = list(keys) if keyids is None else list(keyids)
    try:
        return KeySet(threshold, {keyid: Key.from_dict(keyid, dict(keys[keyid])) for keyid in wanted})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError("root", f"malformed key: {error}") from None
