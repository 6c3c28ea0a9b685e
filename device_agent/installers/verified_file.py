"""A cached artifact that is read once, through one descriptor, and checked against its signed digest on the way."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from device_agent.adapters.foreign_folder import open_plain
from device_agent.installers.hashing import HashLane, sha256
from fleet_protocol.errors import InstallError, ProtocolError

BLOCK: Final = 512 * 1024


class VerifiedFile:
    """Bytes of one artifact in order. They are trusted once `finish` has returned, and not before."""

    def __init__(self, descriptor: int, length: int, digest: str, lane: HashLane) -> None:
        self._descriptor, self._length, self._wanted, self._lane = descriptor, length, digest, lane
        self._digest = sha256()
        self._seen = 0
        self._rest = memoryview(b"")

    @property
    def consumed(self) -> int:
        """Bytes read from the disk so far."""
        return self._seen

    def some(self, most: int) -> memoryview:
        """The next 1 to `most` bytes; none at the end."""
        if not self._rest:
            self._rest = memoryview(self._block())
        piece, self._rest = self._rest[:most], self._rest[most:]
        return piece

    def exact(self, size: int) -> bytes:
        """The next `size` bytes, or ProtocolError `format` where the artifact ends before."""
        return bytes(self.view(size))

    def view(self, size: int) -> memoryview:
        """`exact` without a copy, where the bytes lie together."""
        piece = self.some(size)
        if len(piece) == size:
            return piece
        pieces = [piece]
        left = size - len(piece)
        while left:
            piece = self.some(left)
            if not piece:
                raise ProtocolError("format", "the artifact ends early")
            pieces.append(piece)
            left -= len(piece)
        return memoryview(b"".join(pieces))

    def finish(self) -> str:
        """Read what is left, and return the digest; ProtocolError `digest` unless all of it is what was signed."""
        while self._block():
            pass
        self._lane.drain()
        found: str = self._digest.hexdigest()
        if found != self._wanted or self._seen != self._length:
            raise ProtocolError("digest", f"the cached artifact has digest {found}, {self._wanted} is signed")
        return found

    def _block(self) -> bytes:
        data = os.read(self._descriptor, BLOCK)
        self._seen += len(data)
        if self._seen > self._length:
            raise ProtocolError("digest", f"the cached artifact is longer than the {self._length} bytes signed")
        if data:
            self._lane.update(self._digest, data)
        return data


@contextmanager
def open_verified(path: Path, length: int, digest: str, lane: HashLane) -> Iterator[VerifiedFile]:
    """Raises InstallError `io` unless there is a plain file at `path` that belongs to whom the cache belongs."""
    try:
        descriptor = open_plain(path)
    except OSError as error:
        raise InstallError("io", f"the artifact {path.name} is not in the cache: {error.strerror}") from None
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        yield VerifiedFile(descriptor, length, digest, lane)
    finally:
        os.close(descriptor)
