"""The cache of downloads: `<sha256>`, `<sha256>.part`, `<sha256>.etag`, and what is remembered of mirrors."""

import re
from pathlib import Path
from typing import Final

from device_agent.adapters.files import fsync_dir

_DOWNLOAD: Final = re.compile(r"[0-9a-f]{64}(\.part|\.etag|\.etag\.new)?")


def empty_cache(cache: Path) -> None:
    """No download is left, finished or not; the mirrors' record stays. Raises OSError."""
    if not cache.is_dir():
        return
    for path in cache.iterdir():
        if _DOWNLOAD.fullmatch(path.name):
            path.unlink(missing_ok=True)
    fsync_dir(cache)
