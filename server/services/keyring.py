"""The server's private keys, matched to the roles of root by the public keys themselves."""

from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from loguru import logger
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import SSlibKey
from securesystemslib.signer._signer import Signer

from firmware_tools import keys
from fleet_protocol.envelope import KeySet
from fleet_protocol.errors import PolicyError


class Keyring(Protocol):
    """Signers for a role: from files, a KMS or a token, whatever implements securesystemslib's Signer."""

    def signers(self, role: KeySet, name: str) -> list[Signer]:
        """As many signers as the role's threshold asks for, each under the key id that the role lists.

        Raises PolicyError `keys` where too few are at hand; `name` is the role's, for the message.
        """


class KeyDirectory:
    """Unencrypted PEM files, mode 0600, directly in a directory or in its `online` subdirectory.

    Names do not matter. Read at every use, so that keys can be exchanged while the server runs.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def signers(self, role: KeySet, name: str) -> list[Signer]:
        """See Keyring."""
        found = self._load()
        signers: list[Signer] = []
        for key in role.keys.values():
            private = found.get(str(key.keyval.get("public")))
            if private is not None and isinstance(key, SSlibKey):
                signers.append(CryptoSigner(load_pem_private_key(private.private_bytes, None), key))
        if len(signers) < role.threshold:
            raise PolicyError(
                "keys",
                f"root asks for {role.threshold} {name} key(s) and {self._directory} holds {len(signers)} of them: "
                f"copy the fleet's online/*.pem there (mode 0600)",
            )
        return signers[: role.threshold]

    def _load(self) -> dict[str, CryptoSigner]:
        found: dict[str, CryptoSigner] = {}
        for path in sorted([*self._directory.glob("*.pem"), *self._directory.glob("online/*.pem")]):
            if path.stat().st_mode & 0o077:
                raise PolicyError("keys", f"{path} may be read by others: chmod 600 {path}")
            signer = keys.load(path)
            found[str(signer.public_key.keyval["public"])] = signer
        if not found:
            logger.debug("{} holds no key", self._directory)
        return found
