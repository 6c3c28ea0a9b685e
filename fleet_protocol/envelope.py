"""DSSE v1 envelopes: signing beside verification. Their form on the wire is `fleet_protocol.dsse`.

1. The payload's type is compared before any signature is looked at.
2. A vote belongs to a public key's *value*: neither a second key id nor another spelling of the same key
   (hexadecimal case, PEM line ends, compressed points) makes a second vote.
3. A role that lists one public key twice, or asks for more votes than it has keys, is refused as a whole.
4. Key types are an allow-list.

Keys and signers are securesystemslib's, so that a key may live in a file, a KMS or a token.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer._key import Key
from securesystemslib.signer._signature import Signature
from securesystemslib.signer._signer import Signer

from fleet_protocol.dsse import (
    ASSIGNMENT_TYPE,
    COMMAND_TYPE,
    MANIFEST_TYPE,
    REPORT_TYPE,
    Envelope,
    decode,
    pae,
)
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown

__all__ = [
    "ASSIGNMENT_TYPE",
    "COMMAND_TYPE",
    "MANIFEST_TYPE",
    "REPORT_TYPE",
    "Envelope",
    "KeySet",
    "decode",
    "key_set",
    "pae",
    "public_value",
    "sign",
    "verify",
    "voters",
]

_SCHEMES: Final = frozenset(
    {
        ("ed25519", "ed25519"),
        ("ecdsa", "ecdsa-sha2-nistp256"),
        ("ecdsa", "ecdsa-sha2-nistp384"),
        ("rsa", "rsassa-pss-sha256"),
    }
)
_KEYS_MOST: Final = 64


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one role and how many distinct ones must sign. Rules 3 and 4 hold for every instance."""

    threshold: int
    keys: Mapping[str, Key]

    def __post_init__(self) -> None:
        if len(self.keys) > _KEYS_MOST:
            raise ProtocolError("root", f"a role of more than {_KEYS_MOST} keys")
        for key in self.keys.values():
            if (key.keytype, key.scheme) not in _SCHEMES:
                raise ProtocolError("root", f"keys of type {shown(key.keytype)}, {shown(key.scheme)} are not used here")
        values = self.values
        if len(values) != len(self.keys):
            raise ProtocolError("threshold", "the role lists one public key under two key ids")
        if type(self.threshold) is not int or not 1 <= self.threshold <= len(values):
            raise ProtocolError("root", f"threshold {shown(self.threshold)} of {len(values)} keys")

    @property
    def values(self) -> frozenset[str]:
        """The distinct public keys of the role, as `public_value` spells them."""
        return frozenset(public_value(key) for key in self.keys.values())


def sign(payload: bytes, payload_type: str, signers: Iterable[Signer]) -> Envelope:
    """An envelope that carries one signature of each signer, in the order given."""
    data = pae(payload_type, payload)
    signatures = [signer.sign(data) for signer in signers]
    return Envelope(payload, payload_type, tuple((s.keyid, bytes.fromhex(s.signature)) for s in signatures))


def verify(envelope: Envelope, payload_type: str, role: KeySet) -> bytes:
    """Return the payload once `role.threshold` distinct public keys have signed it.

    Raises ProtocolError `type` where the payload is of another type, `signature` where no listed
    key signed, `threshold` where too few distinct ones did.
    """
    voters(envelope, payload_type, role)
    return envelope.payload


def voters(envelope: Envelope, payload_type: str, role: KeySet) -> frozenset[str]:
    """Verify as `verify` does, and return the public keys that signed, as `public_value` spells them."""
    if envelope.payload_type != payload_type:
        raise ProtocolError("type", f"payloadType {shown(envelope.payload_type)}, wanted {payload_type}")
    votes = _votes(envelope, role.keys)
    if not votes:
        raise ProtocolError("signature")
    if len(votes) < role.threshold:
        raise ProtocolError("threshold", f"{len(votes)} of {role.threshold} distinct keys signed")
    return votes


def public_value(key: Key) -> str:
    """The public key itself, spelt in one way only; raises ProtocolError `root` where it cannot be read."""
    try:
        public = key.keyval["public"]
        if key.keytype == "ed25519":
            return f"ed25519:{Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).public_bytes_raw().hex()}"
        loaded = load_pem_public_key(public.encode("utf-8"))
    except (KeyError, TypeError, ValueError, AttributeError, UnsupportedAlgorithm) as error:
        raise ProtocolError("root", f"malformed public key: {shown(str(error))}") from None
    if isinstance(loaded, EllipticCurvePublicKey):
        point = loaded.public_numbers()
        return f"{loaded.curve.name}:{point.x:x}:{point.y:x}"
    if isinstance(loaded, RSAPublicKey):
        numbers = loaded.public_numbers()
        return f"rsa:{numbers.n:x}:{numbers.e:x}"
    raise ProtocolError("root", f"public keys of type {shown(type(loaded).__name__)} are not used here")


def key_set(threshold: int, keys: Mapping[str, Any], keyids: Sequence[str] | None = None) -> KeySet:
    """A KeySet of TUF key dictionaries by key id; raises ProtocolError `root` on a malformed one.

    `keyids` picks the role's keys out of `keys`; an id that stands twice in it is refused with `threshold`.
    """
    wanted = list(keys) if keyids is None else list(keyids)
    if len(set(wanted)) != len(wanted):
        raise ProtocolError("threshold", "the role lists one key id twice")
    try:
        loaded = {keyid: Key.from_dict(keyid, dict(keys[keyid])) for keyid in wanted}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProtocolError("root", f"malformed key: {shown(str(error))}") from None
    return KeySet(threshold, cast(Mapping[str, Key], loaded))


def _votes(envelope: Envelope, keys: Mapping[str, Key]) -> frozenset[str]:
    data = pae(envelope.payload_type, envelope.payload)
    return frozenset(
        public_value(key)
        for keyid, sig in envelope.signatures
        for key in _candidates(keyid, keys)
        if _signed(key, sig, data)
    )


def _candidates(keyid: str, keys: Mapping[str, Key]) -> list[Key]:
    """A key id is a hint: without one, as other DSSE signers may leave it, every key of the role is tried."""
    if not keyid:
        return list(keys.values())
    return [keys[keyid]] if keyid in keys else []


def _signed(key: Key, sig: bytes, data: bytes) -> bool:
    try:
        key.verify_signature(Signature(key.keyid, sig.hex()), data)
    except (UnverifiedSignatureError, VerificationError):
        return False
    return True
