"""The device's own key: an ed25519 key in `device.pem` (PKCS #8), by which its reports are known."""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from device_agent.adapters.files import make_dir, read_optional, write_atomic
from fleet_protocol import strict_json
from fleet_protocol.dsse import Envelope, pae
from fleet_protocol.errors import PolicyError

FILE: Final = "device.pem"
_FILE_SIZE: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """The private key, in memory."""

    private: Ed25519PrivateKey

    @property
    def public_key(self) -> Mapping[str, Any]:
        """The public key as TUF metadata spells one; what `POST /api/nodes/register` takes."""
        value = self.private.public_key().public_bytes_raw().hex()
        return {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": value}}

    @property
    def keyid(self) -> str:
        """The key id that securesystemslib computes for `public_key`."""
        return hashlib.sha256(strict_json.dumps(self.public_key)).hexdigest()

    def sign(self, payload: bytes, payload_type: str) -> Envelope:
        """The payload in an envelope that carries this key's signature."""
        return Envelope(payload, payload_type, ((self.keyid, self.private.sign(pae(payload_type, payload))),))


def create(state_dir: Path) -> DeviceKey:
    """The device's key, made where there is none, mode 0600. Raises PolicyError `keys` on an unreadable one."""
    make(state_dir)
    return load(state_dir)


def make(state_dir: Path) -> None:
    """There is a device key afterwards; one that was there is not looked at."""
    path = state_dir / FILE
    if not path.exists():
        make_dir(state_dir)
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_once(path, pem)


def load(state_dir: Path) -> DeviceKey:
    """The device's key; raises PolicyError `keys` where it is missing or no ed25519 key."""
    path = state_dir / FILE
    try:
        data = read_optional(path, _FILE_SIZE)
        private = None if data is None else load_pem_private_key(data, None)
    except OSError as error:
        raise PolicyError("keys", f"{path}: {error.strerror or error}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PolicyError("keys", f"{path}: {error}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise PolicyError("keys", f"{path} is missing or no ed25519 key; `fairlead-agent init` makes one")
    return DeviceKey(private)


def _write_once(path: Path, pem: bytes) -> None:
    """A key that somebody else wrote meanwhile stays."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    write_atomic(fresh, pem)
    with suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()
