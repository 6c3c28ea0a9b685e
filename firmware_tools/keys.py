"""Private keys in files: made here, written 0600, read back, never logged.

A key file is PEM-encoded PKCS #8, optionally encrypted with a passphrase (PBES2). Its public half
is a TUF key; the key id is the SHA-256 of that key's canonical JSON, so that every machine that
holds the file finds the same id.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import Key, SSlibKey

from firmware_tools.files import make_private_directory, write_new_private
from fleet_protocol import strict_json
from fleet_protocol.envelope import key_set
from fleet_protocol.errors import PolicyError
from fleet_protocol.ids import is_id

_KEY_FILE_MOST: Final = 16_384
NAME_MEMBER: Final = "x-fairlead-name"
"""The member of a key in root that holds the key's name for people, such as `targets-1`."""


def generate() -> CryptoSigner:
    """A fresh ed25519 key, in memory only."""
    return CryptoSigner(Ed25519PrivateKey.generate())


def write(signer: CryptoSigner, path: Path, passphrase: str | None) -> None:
    """Write the private key to a new file with mode 0600; an existing file is never overwritten.

    With a passphrase the file is encrypted. Raises PolicyError `conflict` where `path` exists.
    """
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        if not passphrase:
            raise PolicyError("keys", "the passphrase is empty; give one, or none at all")
        encryption = BestAvailableEncryption(passphrase.encode("utf-8"))
    make_private_directory(path.parent)
    private = load_pem_private_key(signer.private_bytes, None)
    write_new_private(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


def load(path: Path, passphrase: str | None = None) -> CryptoSigner:
    """The signer of a key file.

    Raises PolicyError `keys` where the file is missing, unreadable, no ed25519 key, or protected by another
    passphrase (also where it needs one and none was given).
    """
    try:
        pem = _read_bounded(path)
    except OSError as error:
        raise PolicyError("keys", f"{path}: {error.strerror}") from None
    secret = passphrase.encode("utf-8") if passphrase is not None and is_encrypted(pem) else None
    try:
        private = load_pem_private_key(pem, secret)
    except TypeError:
        raise PolicyError("keys", f"{path} is encrypted: its passphrase is needed") from None
    except ValueError:
        raise PolicyError("keys", f"{path} is not a private key, or has another passphrase") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise PolicyError("keys", f"{path} is not an ed25519 key")
    return CryptoSigner(private)


def is_encrypted(pem: bytes) -> bool:
    """Whether a PEM file asks for a passphrase."""
    return b"ENCRYPTED PRIVATE KEY" in pem


def needs_passphrase(path: Path) -> bool:
    """Whether the key file at `path` is encrypted; a missing file raises PolicyError `keys`."""
    try:
        return is_encrypted(_read_bounded(path))
    except OSError as error:
        raise PolicyError("keys", f"{path}: {error.strerror}") from None


def named(key: Key, name: str) -> Key:
    """The public key with its name for people in it; key id and key value stay."""
    members = key.to_dict() | {NAME_MEMBER: name}
    return SSlibKey.from_dict(key.keyid, members)


def named_at_least(key: Key, name: str) -> Key:
    """The public key with its own name for people, or with this one where it has none."""
    return key if is_id(key.unrecognized_fields.get(NAME_MEMBER)) else named(key, name)


def name_of(key: Key) -> str:
    """The key's name for people, or the head of its id where it has none."""
    name: str = key.unrecognized_fields.get(NAME_MEMBER, "")
    return name if is_id(name) else key.keyid[:12]


def public_document(key: Key) -> bytes:
    """The public key as a file that may be handed to anybody: key id and TUF key."""
    return strict_json.dumps({"keyid": key.keyid, "key": key.to_dict()}) + b"\n"


def read_public(path: Path) -> Key:
    """The key of a file made by `public_document`; raises PolicyError `keys` on anything else.

    The key id is computed anew, so that a file cannot claim another key's id.
    """
    try:
        document = strict_json.loads(_read_bounded(path), max_size=_KEY_FILE_MOST)
    except OSError as error:
        raise PolicyError("keys", f"{path}: {error.strerror}") from None
    if not isinstance(document, Mapping) or set(document) != {"keyid", "key"}:
        raise PolicyError("keys", f"{path} is not a public key file; make one with `fairlead-firmware key`")
    members: Any = document["key"]
    (key,) = key_set(1, {"key": members}).keys.values()
    if not isinstance(key, SSlibKey) or (key.keytype, key.scheme) != ("ed25519", "ed25519"):
        raise PolicyError("keys", f"{path} is not an ed25519 key")
    return SSlibKey.from_crypto(key._crypto_key())


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_KEY_FILE_MOST + 1)
    if len(data) > _KEY_FILE_MOST:
        raise PolicyError("keys", f"{path} is larger than a key file")
    return data
