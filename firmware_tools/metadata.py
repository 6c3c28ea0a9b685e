"""TUF metadata read strictly: what python-tuf would shrug at is refused before it sees the bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError, SerializationError

from fleet_protocol import limits, strict_json
from fleet_protocol.catalogue import FLOOR_MEMBER, TargetInfo, parse_floor
from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import check_sha256, check_target_path, shown
from fleet_protocol.schema import from_value

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)
_SIZES: Final[dict[str, int]] = {
    "root": limits.ROOT_SIZE,
    "targets": limits.TARGETS_SIZE,
    "snapshot": limits.SNAPSHOT_SIZE,
    "timestamp": limits.TIMESTAMP_SIZE,
}


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Whatever is wrong with what is read in this block, the error says where it lies."""
    try:
        yield
    except ProtocolError as error:
        raise ProtocolError(error.code, f"{path}: {error.detail}") from None


def read(kind: type[S], data: bytes) -> Metadata[S]:
    """The metadata of exactly this type, which can also be written in canonical form; nothing is verified.

    Raises ProtocolError `size`, `parse`, `type` (metadata of another type) or `metadata` (not TUF metadata).
    """
    document = strict_json.loads(data, max_size=_SIZES[kind.type])
    if not isinstance(document, dict) or not isinstance(document.get("signed"), dict):
        raise ProtocolError("metadata", "this is not TUF metadata")
    found = document["signed"].get("_type")
    if found != kind.type:
        raise ProtocolError("type", f"metadata of type {shown(found)}, wanted {kind.type}")
    _check_version(document["signed"])
    try:
        metadata: Metadata[S] = Metadata.from_bytes(data)
        _ = metadata.signed_bytes
    except (DeserializationError, SerializationError) as error:
        raise ProtocolError("metadata", f"not valid {kind.type} metadata: {error.__cause__}"[:300]) from None
    return metadata


def read_targets(data: bytes) -> Metadata[Targets]:
    """Targets metadata whose entries, floors and paths are all of Fairlead's form, or ProtocolError."""
    metadata = read(Targets, data)
    floors(metadata.signed)
    if metadata.signed.delegations is not None:
        raise ProtocolError("metadata", "the catalogue delegates; these tools do not write delegations")
    for path in metadata.signed.targets:
        check_target_path(path)
        entry(metadata.signed, path)
    return metadata


def entry(targets: Targets, path: str) -> tuple[TargetInfo, int, str]:
    """Description, length in bytes and sha256 of one target; raises ProtocolError `schema`."""
    target = targets.targets[path]
    if set(target.hashes) != {"sha256"} or set(target.unrecognized_fields) != {"custom"}:
        raise ProtocolError("schema", f"target {shown(path)} has not exactly a sha256 and a custom member")
    return from_value(TargetInfo, target.custom), target.length, check_sha256(target.hashes["sha256"])


def floors(targets: Targets) -> dict[str, int]:
    """The catalogue's floors: counter by package; raises ProtocolError `schema`."""
    return dict(parse_floor(targets.unrecognized_fields.get(FLOOR_MEMBER)))


def expires_at(now_s: float, days: float) -> datetime:
    """The moment `days` after `now_s` (epoch seconds), in whole seconds as TUF writes it."""
    return datetime.fromtimestamp(int(now_s + days * 86_400), UTC)


def is_expired(signed: Signed, now_s: float) -> bool:
    """Whether the metadata's expiry has passed at `now_s` (epoch seconds)."""
    return signed.is_expired(datetime.fromtimestamp(now_s, UTC))


def _check_version(signed: dict[str, Any]) -> None:
    version = signed.get("version")
    if type(version) is not int or not 1 <= version <= limits.JSON_INTEGER:
        raise ProtocolError("metadata", f"version {shown(version)} is not a positive integer")
