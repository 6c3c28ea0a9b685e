"""Artifacts on disk, each under its sha256.

Rules, cited by number in the tests:

F1. A file has its final name only when its bytes have that digest and would survive a power cut.
F2. No upload is larger than the cap, whatever it says of itself.
F3. An upload that ends early, or is refused, leaves nothing behind; what a crash left goes at the next start.
"""

import errno
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from firmware_tools.files import sync_directory
from fleet_protocol.errors import InstallError, PolicyError, ProtocolError
from fleet_protocol.ids import check_sha256

_PART: Final = ".part"


class Artifacts:
    """The directory of artifacts."""

    def __init__(self, directory: Path, *, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes

    def recover(self) -> None:
        """Make the directory and remove uploads that were cut short (F3); call before the first upload."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in self._directory.glob(f"*{_PART}"):
            path.unlink()

    def path(self, sha256: str) -> Path:
        """The artifact's file, or PolicyError `unknown-artifact`."""
        if self.size(sha256) is None:
            raise PolicyError("unknown-artifact", f"no artifact {sha256} is stored here")
        return self._directory / sha256

    def size(self, sha256: str) -> int | None:
        """Its length in bytes, or None where it is not stored. Raises ProtocolError `schema` for another name."""
        try:
            return (self._directory / check_sha256(sha256)).stat().st_size
        except FileNotFoundError:
            return None

    def upload(self, sha256: str | None, *, declared_bytes: int | None = None) -> "Upload":
        """A place to write to; None takes any digest. Raises PolicyError `too-large` where it says so itself."""
        if sha256 is not None:
            check_sha256(sha256)
        if declared_bytes is not None and declared_bytes > self._most_bytes:
            raise too_large(self._most_bytes)
        return Upload(self._directory, sha256, self._most_bytes)


class Upload:
    """One upload; leaving its `with` block without `finish` leaves nothing behind. Use it from one thread at a time."""

    def __init__(self, directory: Path, sha256: str | None, most_bytes: int) -> None:
        self._directory = directory
        self._wanted = sha256
        self._most_bytes = most_bytes
        self._digest = hashlib.sha256()
        self._length = 0
        descriptor, name = tempfile.mkstemp(dir=directory, suffix=_PART)
        self._file: IO[bytes] = os.fdopen(descriptor, "wb")
        self._temporary = Path(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Append; raises PolicyError `too-large` past the cap, InstallError `no-space` on a full disk."""
        self._length += len(chunk)
        if self._length > self._most_bytes:
            raise too_large(self._most_bytes)
        self._digest.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise _storage(error) from None

    def finish(self) -> tuple[str, Path]:
        """Put the bytes in place and return their digest and file; raises ProtocolError `digest` where it differs."""
        found = self._digest.hexdigest()
        if self._wanted is not None and found != self._wanted:
            raise ProtocolError("digest", f"the {self._length} bytes received have sha256 {found}")
        try:
            self._file.flush()
            os.fchmod(self._file.fileno(), 0o644)
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._directory / found)
            sync_directory(self._directory)
        except OSError as error:
            raise _storage(error) from None
        return found, self._directory / found

    def close(self) -> None:
        """Give the space back unless the upload was finished; more than once is once."""
        # Closing flushes, and a full disk refuses that; the descriptor is closed all the same, the bytes thrown away.
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def too_large(most_bytes: int) -> PolicyError:
    """The error for a body over the cap."""
    return PolicyError("too-large", f"at most {most_bytes} bytes are taken")


def _storage(error: OSError) -> InstallError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return InstallError("no-space", "the server's disk is too full for the artifact")
    return InstallError("io", f"the artifact can not be stored: {error.strerror}")
