"""The cache of downloads: `<sha256>`, `<sha256>.part`, `<sha256>.etag`, what is remembered of mirrors, and what apt
is at.

The worker user fills it; whoever installs reads it with other privileges, and believes nothing but digests.
"""

from pathlib import Path
from typing import Final

from device_agent.adapters.foreign_folder import empty_folder
from fleet_protocol.ids import check_sha256

MIRRORS: Final = "mirrors.json"


def artifact_path(cache: Path, sha256: str) -> Path:
    """Where the whole artifact is. Raises ProtocolError `schema` for what is no digest."""
    return cache / check_sha256(sha256)


def empty_cache(cache: Path) -> None:
    """Nothing is left, whoever put it there; the mirrors' record stays. Raises OSError."""
    empty_folder(cache, but=(MIRRORS,))
