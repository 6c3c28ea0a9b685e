"""What the TUF library's exceptions mean in our codes."""

from pathlib import Path
from typing import Any, Final

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root

from device_agent.trust.fetcher import Fetched, RetainedFetcher
from fleet_protocol.errors import FleetError, ProtocolError, TransportError

_CAUSES_MOST: Final = 8


def refusal(error: RepositoryError | DownloadError, fetcher: RetainedFetcher, root_file: Path) -> FleetError:
    """The error with a stable code that ended a refresh; `root_file` is the root that was trusted then."""
    own = _own_cause(error)
    if own is not None:
        return own
    detail = f"{fetcher.role}: {error}"[:300]
    if isinstance(error, DownloadLengthMismatchError):
        return ProtocolError("size", detail)
    if isinstance(error, DownloadError):
        return TransportError("refused", detail)
    if isinstance(error, ExpiredMetadataError):
        return ProtocolError("expired", detail)
    return ProtocolError(_code(error, fetcher, root_file), detail)


def _code(error: RepositoryError, fetcher: RetainedFetcher, root_file: Path) -> str:
    newest = fetcher.newest
    if fetcher.role == "root" or newest is None:
        return "root" if fetcher.role in ("root", None) else "metadata"
    if isinstance(error, UnsignedMetadataError):
        return _unsigned(newest, root_file)
    if isinstance(error, LengthOrHashMismatchError):
        return "mismatch"
    if isinstance(error, BadVersionNumberError):
        as_asked = newest.version is None or newest.signed.get("version") == newest.version
        return "replay" if as_asked else "mismatch"
    return "metadata"


def _unsigned(newest: Fetched, root_file: Path) -> str:
    """`threshold` where some of the role's keys did sign, `signature` where none did."""
    try:
        root: Root = Metadata[Root].from_bytes(root_file.read_bytes()).signed
        metadata: Metadata[Any] = Metadata.from_bytes(newest.data)
        result = root.get_verification_result(newest.role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError):
        return "signature"
    return "threshold" if result.signed else "signature"


def _own_cause(error: BaseException) -> FleetError | None:
    """Our own error that the library wrapped, if it was one."""
    cause: BaseException | None = error
    for _ in range(_CAUSES_MOST):
        if cause is None or isinstance(cause, FleetError):
            return cause
        cause = cause.__cause__
    return None
