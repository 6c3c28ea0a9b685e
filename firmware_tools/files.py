"""Files written so that a crash leaves the old content or the new, and secrets are never readable by others."""

import os
import tempfile
from pathlib import Path

from fleet_protocol.errors import PolicyError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, mode 0644 less the umask; after a crash it is whole, old or new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_new_private(path: Path, data: bytes) -> None:
    """Create `path` whole with mode 0600, or raise PolicyError `conflict` where it exists."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        raise PolicyError("conflict", f"{path} exists already and is never overwritten") from None
    finally:
        Path(name).unlink()
    sync_directory(path.parent)


def make_private_directory(path: Path) -> None:
    """Make `path`, and give it mode 0700 where it was not there; an existing directory keeps its mode."""
    if path.is_dir():
        return
    path.mkdir(parents=True)
    path.chmod(0o700)


def sync_directory(path: Path) -> None:
    """Make the names in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
