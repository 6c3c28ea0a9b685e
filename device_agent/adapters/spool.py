"""Raw documents on disk: the one that a worker reads, and the newest that was accepted."""

from pathlib import Path
from typing import Final

from device_agent.adapters.files import fsync_file, make_dir, read_optional, remove, write_atomic
from fleet_protocol.topics import TopicType

_WAITING: Final = ".waiting"
_ACCEPTED: Final = ".accepted"
_MODE: Final = 0o640
"""The folder's group reads, which is the worker user's where there is one (`state_folders`)."""


class DocumentSpool:
    """device_agent.ports.Spool on files: one waiting and one accepted document of each kind. Raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, kind: TopicType, payload: bytes) -> Path:
        """Where a worker finds the document."""
        make_dir(self._directory)
        path = self._directory / (kind.name + _WAITING)
        write_atomic(path, payload, mode=_MODE, durable=False)
        return path

    def accept(self, kind: TopicType) -> None:
        """The waiting document is from now on the accepted one; a power cut leaves that or the one before, whole."""
        waiting = self._directory / (kind.name + _WAITING)
        fsync_file(waiting)
        waiting.replace(self._directory / (kind.name + _ACCEPTED))

    def refuse(self, kind: TopicType) -> None:
        """The waiting document is of no use."""
        (self._directory / (kind.name + _WAITING)).unlink(missing_ok=True)

    def forget(self, kind: TopicType) -> None:
        """The accepted document is of no use any more."""
        remove(self._directory / (kind.name + _ACCEPTED))

    def accepted(self, kind: TopicType) -> bytes | None:
        """The newest accepted document."""
        return read_optional(self._directory / (kind.name + _ACCEPTED), kind.max_size)

    def accepted_path(self, kind: TopicType) -> Path | None:
        """Where it is."""
        path = self._directory / (kind.name + _ACCEPTED)
        return path if path.exists() else None
