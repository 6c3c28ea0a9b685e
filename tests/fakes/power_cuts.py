"""Every state that a power cut may leave of a directory, from a recording of the calls that changed it.

The recording is of the real calls on a real file system. A cut is then played on paper, by the promises of POSIX alone:
what was written is certain only after fsync of the file, a name only after fsync of its directory. What is not certain
may be there, be missing, or - for data - be torn or zeros. Names of one directory may come back in any combination.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

_CALLS = ("open", "write", "fsync", "close", "replace", "rename", "unlink", "mkdir")


@dataclass(frozen=True)
class Call:
    """One call that changed the directory, or made a change certain."""

    name: str
    path: Path
    data: bytes = b""
    target: Path | None = None
    flags: int = 0


@dataclass
class Recording:
    """The calls so far, in order."""

    root: Path
    calls: list[Call] = field(default_factory=list)
    _open: dict[int, Path] = field(default_factory=dict)

    def start(self, patch: pytest.MonkeyPatch) -> None:
        """Record every call of this process below `root` from now on; the calls themselves are made."""
        real = {name: getattr(os, name) for name in _CALLS}
        for name in _CALLS:
            patch.setattr(os, name, self._recorder(name, real[name]))

    def _recorder(self, name: str, real: Any) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            result = real(*args, **keywords)
            self._note(name, args, result)
            return result

        return call

    def _note(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        if name == "close":
            self._open.pop(args[0], None)
            return
        path = self._open.get(args[0]) if isinstance(args[0], int) else Path(os.fsdecode(args[0]))
        if path is None or not path.is_relative_to(self.root):
            return
        if name == "open":
            self._open[result] = path
            if not args[1] & (os.O_WRONLY | os.O_RDWR):
                return
            self.calls.append(Call("open", path, flags=args[1]))
        elif name == "write":
            self.calls.append(Call("write", path, data=bytes(args[1])[:result]))
        elif name in ("replace", "rename"):
            self.calls.append(Call("replace", path, target=Path(os.fsdecode(args[1]))))
        else:
            self.calls.append(Call(name, path))


@dataclass
class _File:
    """One inode: what is certain of its bytes, and what was written since."""

    certain: bytes = b""
    written: bytes = b""

    def outcomes(self) -> list[bytes]:
        if self.certain == self.written:
            return [self.certain]
        half = self.written[: len(self.written) // 2]
        return [
            self.certain,
            half,
            b"\0" * len(self.written),
            half + b"\0" * (len(self.written) - len(half)),
            self.written,
        ]


Names = dict[Path, "_File | None"]
"""None stands for a directory."""


@dataclass
class Disk:
    """What a file system holds, for sure and perhaps."""

    certain: Names = field(default_factory=dict)
    now: Names = field(default_factory=dict)
    pending: list[tuple[Call, "_File | None"]] = field(default_factory=list)
    """Changes of names that no fsync of their directory has made certain."""

    def play(self, call: Call) -> None:
        """The next recorded call."""
        if call.name == "open":
            self._open(call)
        elif call.name == "write":
            file = self.now[call.path]
            assert file is not None
            file.written += call.data
        elif call.name == "fsync":
            self._fsync(call.path)
        else:
            self._change(call, self.now.get(call.path))

    def states(self) -> Iterator[dict[Path, bytes | None]]:
        """Everything that may be found after a power cut now, by path; None is a directory."""
        for kept in product((False, True), repeat=len(self.pending)):
            names = dict(self.certain)
            for keep, (call, file) in zip(kept, self.pending, strict=True):
                if keep:
                    _apply(names, call, file)
            files = {id(file): file for file in names.values() if file is not None}
            for contents in product(*(file.outcomes() for file in files.values())):
                found = dict(zip(files, contents, strict=True))
                yield {path: None if file is None else found[id(file)] for path, file in names.items()}

    def _open(self, call: Call) -> None:
        file = self.now.get(call.path)
        if file is None:
            self._change(call, _File())
        elif call.flags & os.O_TRUNC:
            file.written = b""

    def _change(self, call: Call, file: _File | None) -> None:
        _apply(self.now, call, file)
        self.pending.append((call, file))

    def _fsync(self, path: Path) -> None:
        file = self.now.get(path)
        if file is not None:
            file.certain = file.written
            return
        due = [(call, file) for call, file in self.pending if (call.target or call.path).parent == path]
        for call, changed in due:
            _apply(self.certain, call, changed)
        self.pending = [entry for entry in self.pending if entry not in due]


def _apply(names: Names, call: Call, file: _File | None) -> None:
    if call.name == "unlink":
        names.pop(call.path, None)
    elif call.name == "replace":
        assert call.target is not None
        names.pop(call.path, None)
        names[call.target] = file
    else:
        names[call.path] = file


def lay_out(state: dict[Path, bytes | None], source: Path, target: Path) -> None:
    """Make `target` what `source` would be after a cut in this state. A name whose directory is lost is lost."""
    for path in sorted(state):
        place = target / path.relative_to(source)
        content = state[path]
        if not place.parent.is_dir():
            continue
        if content is None:
            place.mkdir()
        else:
            place.write_bytes(content)
