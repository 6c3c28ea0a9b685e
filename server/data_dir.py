"""The server's data directory: one server at a time, and its token."""

import fcntl
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from firmware_tools.files import sync_directory
from fleet_protocol.errors import PolicyError

_TOKEN_LEAST: Final = 16


class DataDir:
    """`<data>/`: catalogue/, artifacts/, keys/, fairlead.db, token; mode 0700."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self) -> None:
        """Make the directory and take it for this process.

        Raises PolicyError `setup` where it can not be written, or another server has it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PolicyError("setup", f"the data directory {self.path} can not be used: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise PolicyError(
                "setup", f"another server works in {self.path}: stop it, or choose another data directory"
            ) from None
        self._lock = descriptor

    def close(self) -> None:
        """Let another server have it; more than once is once."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def token(self) -> str:
        """The API token; made at the first start, with mode 0600.

        Raises PolicyError `setup` where the file is too short to be one, or may be read by others.
        """
        file = self.path / "token"
        if not file.exists():
            self.write_private("token", secrets.token_urlsafe(32) + "\n")
        if file.stat().st_mode & 0o077:
            raise PolicyError("setup", f"{file} may be read by others: chmod 600 {file}")
        token = file.read_text(encoding="utf-8").strip()
        if len(token) < _TOKEN_LEAST or not token.isascii() or not token.isprintable():
            raise PolicyError("setup", f"{file} holds no token of at least {_TOKEN_LEAST} characters: remove the file")
        return token

    def write_private(self, name: str, text: str) -> None:
        """Replace a small file of mode 0600; a crash leaves the old one or the new."""
        descriptor, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path / name)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(self.path)
