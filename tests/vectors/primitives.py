"""The few primitives that the vectors need, written anew from the specifications.

Nothing here imports Fairlead, so that the vectors check the code and not the code itself.
"""

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Json = dict[str, Any]


def compact(value: Any) -> str:
    """Sorted, compact JSON. For the plain ASCII texts in the vectors it is also TUF's canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class TestKey:
    """An ed25519 key whose 32 private bytes are the SHA-256 of a seed that everybody may read. Only for tests."""

    __test__ = False

    def __init__(self, name: str) -> None:
        self.seed = f"fairlead test key: {name}"
        self._private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(self.seed.encode()).digest())
        self.public = self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        self.tuf: Json = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": self.public}}
        self.keyid = sha256(compact(self.tuf).encode())

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)

    def shown(self) -> Json:
        """How a vector shows the key: enough to rebuild it in any language."""
        return {"seed": self.seed, "keyid": self.keyid, "public": self.public}


def pae(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])


def envelope(payload: bytes, payload_type: str, *keys: TestKey) -> Json:
    data = pae(payload_type, payload)
    signatures = [{"keyid": key.keyid, "sig": b64(key.sign(data))} for key in keys]
    return {"payload": b64(payload), "payloadType": payload_type, "signatures": signatures}


def role(threshold: Any, *keys: TestKey) -> Json:
    return {"threshold": threshold, "keys": {key.keyid: key.tuf for key in keys}}


def metadata(signed: Json, *keys: TestKey) -> Json:
    """TUF metadata: signatures over the canonical JSON of `signed`."""
    data = compact(signed).encode()
    return {"signatures": [{"keyid": key.keyid, "sig": key.sign(data).hex()} for key in keys], "signed": signed}


def bucket(salt: str, device: str) -> int:
    return int(sha256(f"{salt}|{device}".encode())[:8], 16) % 10_000


def ok(**value: Any) -> Json:
    return {"ok": value or True}


def refused(code: str) -> Json:
    return {"code": code}
