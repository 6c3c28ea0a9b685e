"""What an installer changes outside the slots, as it was before: copies with their hashes, and the way back.

Rules
1. A path is kept before it is changed, and only once: what is kept is what stood there before the attempt.
2. Nothing is believed to be kept before its copy and the list that names it are durable.
3. `restore` puts back exactly what was kept: content, mode, owner, a link's text, or nothing where nothing was. A copy
   that is not what was kept is not put back (attack B11).
4. Each call may come twice, and after a kill at any instant; the list is dropped last.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from device_agent.adapters.files import make_dir, read_optional, remove, remove_tree, write_atomic
from device_agent.installers.crash import crash_point
from device_agent.installers.system_files import SystemFiles
from fleet_protocol.errors import InstallError

_LIST_MOST: Final = 32 * 1024 * 1024
"""What is written can be read again: a list is refused before it is longer, while nothing has changed yet."""
_FILE_MOST: Final = 256 * 1024 * 1024
_LIST: Final = "kept.json"


class Backup:
    """One part's backup in one directory. Paths are the system's own, absolute. Errors of the disk come as OSError."""

    def __init__(self, system: SystemFiles, place: Path) -> None:
        self._system, self._place = system, place

    @property
    def facts(self) -> Mapping[str, Any] | None:
        """What the installer wrote down of how things were; None where no attempt is under way."""
        facts = self._read().get("facts")
        return facts if isinstance(facts, dict) else None

    def note(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write down how things were, durably, unless that was done before; returns what stands there now.

        Raises InstallError `unsupported` where that is more than can be kept.
        """
        kept = self._read()
        if not isinstance(kept.get("facts"), dict):
            self._write(kept | {"facts": dict(facts)})
            crash_point("backup.after_note")
            return facts
        found: Mapping[str, Any] = kept["facts"]
        return found

    def keep(self, *paths: str) -> None:
        """Rules 1 and 2: the paths may be changed from now on.

        Raises InstallError `occupied` for a directory, `unsupported` for more paths than can be kept.
        """
        kept = self._read()
        files = dict(kept.get("files", {}))
        fresh = [path for path in dict.fromkeys(paths) if path not in files]
        if not fresh:
            return
        for path in fresh:
            files[path] = self._copy(path, str(len(files)))
            crash_point("backup.after_copy")
        self._write(kept | {"files": files})
        crash_point("backup.after_list")

    @property
    def paths(self) -> tuple[str, ...]:
        """What was kept, in that order."""
        return tuple(self._read().get("files", {}))

    def kept(self, path: str) -> bytes | None:
        """The content that stood at this path, or None where there was no file. Raises InstallError `altered`."""
        entry = self._read().get("files", {}).get(path)
        return self._content(path, entry) if entry is not None and entry["kind"] == "file" else None

    def prove(self) -> None:
        """Every copy is what was kept, or InstallError `altered`."""
        self._contents()

    def _contents(self) -> dict[str, bytes]:
        files = self._read().get("files", {})
        return {path: self._content(path, entry) for path, entry in files.items() if entry["kind"] == "file"}

    def restore(self) -> None:
        """Rule 3, for every path that was kept, the last first."""
        files, contents = self._read().get("files", {}), self._contents()
        for path, entry in reversed(files.items()):
            if entry["kind"] == "absent":
                self._system.remove(path)
            elif entry["kind"] == "link":
                self._system.link(path, entry["target"])
            else:
                self._system.write(path, contents[path], mode=entry["mode"], owner=(entry["uid"], entry["gid"]))
            crash_point("backup.after_restore")

    def drop(self) -> None:
        """Nothing is kept any more."""
        if self._place.is_dir():
            remove(self._place / _LIST)
            crash_point("backup.after_drop")
            remove_tree(self._place)

    def _copy(self, path: str, name: str) -> Mapping[str, Any]:
        found = self._system.look(path)
        if found is None:
            return {"kind": "absent"}
        if found.target is not None:
            return {"kind": "link", "target": found.target}
        make_dir(self._place)
        write_atomic(self._place / name, found.data)
        digest = hashlib.sha256(found.data).hexdigest()
        return {
            "kind": "file",
            "copy": name,
            "sha256": digest,
            "mode": found.mode,
            "uid": found.owner[0],
            "gid": found.owner[1],
        }

    def _content(self, path: str, entry: Mapping[str, Any]) -> bytes:
        data = read_optional(self._place / PurePosixPath(entry["copy"]).name, _FILE_MOST)
        if data is None or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise InstallError("altered", f"the backup of {path} is not what was kept")
        return data

    def _read(self) -> dict[str, Any]:
        data = read_optional(self._place / _LIST, _LIST_MOST)
        value = {} if data is None else json.loads(data)
        return value if isinstance(value, dict) else {}

    def _write(self, kept: Mapping[str, Any]) -> None:
        data = json.dumps(kept).encode()
        if len(data) > _LIST_MOST:
            raise InstallError("unsupported", f"the list of what must be kept has {len(data)} bytes, more than can be")
        make_dir(self._place)
        write_atomic(self._place / _LIST, data)
