"""The cache of downloads: `<sha256>`, `<sha256>.part`, `<sha256>.etag`, what is remembered of mirrors, and what apt
is at."""

import re
from pathlib import Path
from typing import Final

from device_agent.adapters.files import fsync_dir, remove_tree

_DOWNLOAD: Final = re.compile(r"[0-9a-f]{64}(\.part|\.etag|\.etag\.new)?")


def empty_cache(cache: Path) -> None:
    """No download is left, finished or not; the mirrors' record stays. Raises OSError."""
    if not cache.is_dir():
        return
    for path in cache.iterdir():
        if _DOWNLOAD.fullmatch(path.name):
            path.unlink(missing_ok=True)
    remove_tree(cache / "apt")
    fsync_dir(cache)
