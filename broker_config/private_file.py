"""Files that appear whole or not at all, with their rights from the first byte."""

import os
import tempfile
from pathlib import Path

from fleet_protocol.errors import PolicyError


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` atomically; private keys are given mode 0600. Raises PolicyError `setup`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PolicyError("setup", f"cannot write {path}: {error.strerror or error}") from None
