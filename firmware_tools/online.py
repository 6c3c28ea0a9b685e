"""What the server signs with its online keys: snapshot and timestamp.

They say which of the offline-signed documents are current; they cannot say what may run.
"""

from collections.abc import Mapping
from typing import Final

from securesystemslib.signer._signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from firmware_tools.metadata import expires_at, read

SNAPSHOT_DAYS: Final = 7.0
TIMESTAMP_DAYS: Final = 7.0


def make_snapshot(
    targets: bytes,
    signer: Signer,
    *,
    version: int,
    now_s: float,
    days: float = SNAPSHOT_DAYS,
    delegated: Mapping[str, bytes] | None = None,
) -> bytes:
    """Snapshot metadata that binds exactly these targets, by version, length and sha256.

    `version` must be greater than any snapshot that devices have seen. `delegated` holds further targets
    metadata by role name. Raises ProtocolError where the bytes are not targets metadata.
    """
    documents = {"targets": targets, **(delegated or {})}
    meta = {f"{name}.json": _targets_meta(data) for name, data in sorted(documents.items())}
    snapshot = Snapshot(version=version, expires=expires_at(now_s, days), meta=meta)
    return _signed(Metadata(snapshot), signer)


def make_timestamp(
    snapshot: bytes, signer: Signer, *, version: int, now_s: float, days: float = TIMESTAMP_DAYS
) -> bytes:
    """Timestamp metadata that binds exactly this snapshot. `version` must rise with every new timestamp."""
    number = read(Snapshot, snapshot).signed.version
    meta = MetaFile.from_data(number, snapshot, ["sha256"])
    return _signed(Metadata(Timestamp(version=version, expires=expires_at(now_s, days), snapshot_meta=meta)), signer)


def _targets_meta(data: bytes) -> MetaFile:
    return MetaFile.from_data(read(Targets, data).signed.version, data, ["sha256"])


def _signed(metadata: Metadata[Snapshot] | Metadata[Timestamp], signer: Signer) -> bytes:
    metadata.sign(signer)
    return metadata.to_bytes()
