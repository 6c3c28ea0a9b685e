"""A download that is not finished: `<sha256>.part`, and beside it where it comes from.

1. Whatever is in the file is hashed again before it is continued.
2. A kill loses at most the block in hand; a power cut at most the last two seconds.
3. The file gets its final name only whole, verified and synced.
"""

import json
import os
import time
from pathlib import Path
from typing import Any, Final

from device_agent.adapters.files import fsync_dir, remove, write_atomic
from device_agent.adapters.foreign_folder import open_own, read_plain
from device_agent.installers.crash import crash_point
from device_agent.installers.hashing import Buffer, HashLane, sha256

_BLOCK: Final = 512 * 1024
_SYNC_S: Final = 2.0
_TAG_MOST: Final = 4_096


class PartFile:
    """One artifact on its way into the cache. Errors of the disk come as OSError."""

    def __init__(self, cache: Path, digest: str, length: int, lane: HashLane) -> None:
        """Opens the part that an interrupted download left, or an empty one."""
        self._whole = cache / digest
        self._part = cache / f"{digest}.part"
        self._tag = cache / f"{digest}.etag"
        self._wanted, self._length, self._lane = digest, length, lane
        self._descriptor = open_own(self._part)
        self._digest: Any = sha256()
        self.size = 0
        self._synced_s = time.monotonic()
        self._read_back()

    @property
    def left(self) -> int:
        """Bytes that are missing."""
        return self._length - self.size

    def write(self, data: Buffer) -> None:
        """Append; the caller never gives more than `left`."""
        self._lane.update(self._digest, data)
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            view, self.size = view[written:], self.size + written
        crash_point("fetch.after_block")
        if time.monotonic() - self._synced_s > _SYNC_S:
            os.fdatasync(self._descriptor)
            self._synced_s = time.monotonic()

    def is_right(self) -> bool:
        """Whether all of it is there and is what was signed."""
        self._lane.drain()
        return self.left == 0 and bool(self._digest.hexdigest() == self._wanted)

    def restart(self) -> None:
        """Empty; what was there is of another file."""
        self._lane.drain()
        self._digest, self.size = sha256(), 0
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        remove(self._tag)

    def finish(self) -> None:
        """Give the file its final name, durably. Only after `is_right`."""
        crash_point("fetch.before_sync")
        os.fsync(self._descriptor)
        crash_point("fetch.before_rename")
        self._part.replace(self._whole)
        fsync_dir(self._whole.parent)
        crash_point("fetch.after_rename")
        remove(self._tag)

    def close(self) -> None:
        """Let go; what was written stays for the next try."""
        self._lane.drain()
        os.close(self._descriptor)

    def discard(self) -> None:
        """Give the space back."""
        remove(self._part)
        remove(self._tag)

    def tag(self, url: str) -> str | None:
        """The strong entity tag under which `url` gave what is here; None where another source did."""
        try:
            value = json.loads(read_plain(self._tag, _TAG_MOST))
        except (OSError, ValueError, RecursionError):
            return None
        tag = value.get("etag") if isinstance(value, dict) and value.get("url") == url else None
        return tag if isinstance(tag, str) else None

    def keep_tag(self, url: str, tag: str | None) -> None:
        """Remember the entity tag of what is being written; a weak or odd one is of no use."""
        if tag is None or not tag.startswith('"') or not tag.isprintable() or len(tag) > 256:
            remove(self._tag)
        else:
            write_atomic(self._tag, json.dumps({"url": url, "etag": tag}).encode(), durable=False)

    def _read_back(self) -> None:
        while data := os.read(self._descriptor, _BLOCK):
            self.size += len(data)
            if self.size > self._length:
                self.restart()
                return
            self._lane.update(self._digest, data)
