"""The server's data directory: one server at a time, its fleet, and its tokens."""

import fcntl
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from firmware_tools.files import sync_directory
from fleet_protocol import strict_json
from fleet_protocol.errors import FleetError, PolicyError
from fleet_protocol.fleet_role import parse_fleet_role
from fleet_protocol.limits import ROOT_SIZE
from server.services.catalogue_files import CatalogueFiles
from server.tokens import API, ENROL, Tokens

_TOKEN_LEAST: Final = 16
_FLEET: Final = "fleet"
"""A fleet that nobody has named."""


class DataDir:
    """`<data>/`: catalogue/, artifacts/, keys/, fairlead.db, token, enrol-token; mode 0700."""

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

    def fleet(self, given: str | None) -> str:
        """The fleet of the newest root in here; the `given` one, or `fleet`, where there is no root that can be read.

        Call it on a directory that is open. Raises PolicyError `setup` where the root is of another fleet than `given`.
        """
        files = CatalogueFiles(self.path / "catalogue")
        files.recover()
        found = _fleet_of(files.roots()[-1:])
        if found is not None and given is not None and found != given:
            advice = "leave --fleet out, or name the data directory and the broker of one and the same fleet"
            raise PolicyError("setup", f"the root in {self.path} is of fleet {found}, not of {given}: {advice}")
        return found or given or _FLEET

    def tokens(self) -> Tokens:
        """Both tokens, each as `token` has it. Raises PolicyError `setup` where they are one and the same."""
        found = Tokens(api=self.token(API), enrol=self.token(ENROL))
        if found.api == found.enrol:
            raise PolicyError("setup", f"{self.path / ENROL} holds the API token, which no device may have: remove it")
        return found

    def token(self, name: str = API) -> str:
        """The token in the file `name`; made at the first start, with mode 0600.

        Raises PolicyError `setup` where the file is too short to be one, or may be read by others.
        """
        file = self.path / name
        if not file.exists():
            self.write_private(name, secrets.token_urlsafe(32) + "\n")
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


def _fleet_of(roots: list[bytes]) -> str | None:
    """What the root says without a look at its signatures: whether it counts at all, the catalogue decides."""
    try:
        return parse_fleet_role(strict_json.loads(roots[0], max_size=ROOT_SIZE)["signed"]["x-fleet"]).fleet
    except (FleetError, IndexError, KeyError, TypeError):
        return None
