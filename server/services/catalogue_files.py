"""The catalogue's metadata on disk: replaced as a whole, so that a crash leaves the old set or the new.

`metadata/` is in force. A new set is written and fsynced as `metadata.new`, then `metadata` is renamed to
`metadata.old` and `metadata.new` to `metadata`. Where `metadata` is missing, `metadata.new` is therefore whole.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from firmware_tools.files import sync_directory

_NAME: Final = re.compile(r"([1-9][0-9]{0,8})\.(root|targets|snapshot)\.json")
_FILE_MOST: Final = 8 * 1024 * 1024


class CatalogueFiles:
    """Reads and replaces the documents in `<directory>/metadata`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._metadata = directory / "metadata"

    def recover(self) -> None:
        """Finish or undo a replacement that a crash cut short; call once before reading."""
        self._directory.mkdir(parents=True, exist_ok=True)
        new, old = self._beside("new"), self._beside("old")
        if not self._metadata.exists():
            if new.exists():
                new.rename(self._metadata)
            elif old.exists():
                old.rename(self._metadata)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        sync_directory(self._directory)

    def roots(self) -> list[bytes]:
        """Every root from version 1 up to the first that is missing."""
        found = self._versions("root")
        chain: list[bytes] = []
        while len(chain) + 1 in found:
            chain.append(self._read(found[len(chain) + 1]))
        return chain

    def newest(self, role: str) -> bytes | None:
        """The newest `targets` or `snapshot` by its file's number."""
        found = self._versions(role)
        return self._read(found[max(found)]) if found else None

    def timestamp(self) -> bytes | None:
        """The timestamp."""
        path = self._metadata / "timestamp.json"
        return self._read(path) if path.is_file() else None

    def replace(self, documents: Mapping[str, bytes]) -> None:
        """Make `documents`, by file name, the whole content of the directory; durable on return."""
        new, old = self._beside("new"), self._beside("old")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        for name, data in documents.items():
            with (new / name).open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        sync_directory(new)
        shutil.rmtree(old, ignore_errors=True)
        if self._metadata.exists():
            self._metadata.rename(old)
        new.rename(self._metadata)
        sync_directory(self._directory)
        shutil.rmtree(old, ignore_errors=True)

    def _beside(self, suffix: str) -> Path:
        return self._directory / f"metadata.{suffix}"

    def _versions(self, role: str) -> dict[int, Path]:
        if not self._metadata.is_dir():
            return {}
        matches = ((_NAME.fullmatch(path.name), path) for path in self._metadata.iterdir())
        return {int(match[1]): path for match, path in matches if match is not None and match[2] == role}

    @staticmethod
    def _read(path: Path) -> bytes:
        with path.open("rb") as file:
            return file.read(_FILE_MOST + 1)
