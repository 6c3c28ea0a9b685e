"""Every state that a power cut may leave of a directory, from a recording of the calls that changed it.

The recording is of the real calls on a real file system. A cut is then played on paper, by the promises of POSIX alone:
what was written is certain only after fsync of the file, a name only after fsync of its directory. What is not certain
may be there, be missing, or - for data - be torn or zeros. Names of one directory may come back in any combination.
Where there are more states than `STATES_MOST` at one moment, a seeded choice of them is looked at.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest

_CALLS = ("open", "write", "pwrite", "ftruncate", "fsync", "fdatasync", "close", "replace", "rename", "unlink", "mkdir")
_MORE_CALLS = ("rmdir", "symlink", "link", "dup")
STATES_MOST = 96


@dataclass(frozen=True)
class Call:
    """One call that changed the directory, or made a change certain."""

    name: str
    path: Path
    data: bytes = b""
    target: Path | None = None
    flags: int = 0
    offset: int = 0


@dataclass
class Recording:
    """The calls so far, in order."""

    root: Path
    calls: list[Call] = field(default_factory=list)
    _open: dict[int, Path] = field(default_factory=dict)
    _offsets: dict[int, int] = field(default_factory=dict)

    def start(self, patch: pytest.MonkeyPatch) -> None:
        """Record every call of this process below `root` from now on; the calls themselves are made."""
        for name in (*_CALLS, *_MORE_CALLS):
            patch.setattr(os, name, self._recorder(name, getattr(os, name)))

    def _recorder(self, name: str, real: Any) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            path = self._path(args[0], keywords.get("dir_fd"))
            result = real(*args, **keywords)
            self._note(name, args, keywords, path, result)
            return result

        return call

    def _path(self, name: Any, directory: int | None = None) -> Path | None:
        if isinstance(name, int):
            return self._open.get(name)
        path = Path(os.fsdecode(name))
        if directory is not None:
            base = self._open.get(directory)
            path = base / path if base is not None else Path("/nowhere")
        return path if path.is_relative_to(self.root) else None

    def _note(self, name: str, args: Any, keywords: Any, path: Path | None, result: Any) -> None:
        if name == "close":
            self._open.pop(args[0], None)
            return
        if name == "dup":
            if path is not None:
                self._open[result] = path
            return
        if name in ("symlink", "link", "replace", "rename"):
            self._note_pair(name, args, keywords)
            return
        if path is None:
            return
        if name == "open":
            self._note_open(path, result, args[1])
        elif name in ("write", "pwrite"):
            data = bytes(args[1])[:result]
            offset = args[2] if name == "pwrite" else self._offsets.get(args[0], 0)
            if name == "write":
                self._offsets[args[0]] = offset + result
            self.calls.append(Call("write", path, data=data, offset=offset))
        elif name == "ftruncate":
            self.calls.append(Call("truncate", path, offset=args[1]))
        else:
            self.calls.append(Call("fsync" if name == "fdatasync" else name, path))

    def _note_open(self, path: Path, descriptor: int, flags: int) -> None:
        self._open[descriptor], self._offsets[descriptor] = path, 0
        if flags & (os.O_WRONLY | os.O_RDWR):
            self.calls.append(Call("open", path, flags=flags))

    def _note_pair(self, name: str, args: Any, keywords: Any) -> None:
        target = self._path(args[1], keywords.get("dst_dir_fd", keywords.get("dir_fd")))
        if target is None:
            return
        if name == "symlink":
            self.calls.append(Call("symlink", target, data=os.fsencode(args[0])))
            return
        source = self._path(args[0], keywords.get("src_dir_fd"))
        assert source is not None, "nothing comes in from outside"
        self.calls.append(Call("link" if name == "link" else "replace", source, target=target))


@dataclass
class _File:
    """One inode: what is certain of its bytes, and what was written since. A link is one whose text is certain."""

    certain: bytes = b""
    written: bytes = b""
    link: bool = False

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


@dataclass(frozen=True)
class Link:
    """A symbolic link that is found."""

    text: str


State = dict[Path, "bytes | Link | None"]
"""What is found, by path; None is a directory."""


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
        elif call.name in ("write", "truncate"):
            file = self.now[call.path]
            assert file is not None
            before = file.written[: call.offset].ljust(call.offset, b"\0")
            after = b"" if call.name == "truncate" else call.data + file.written[call.offset + len(call.data) :]
            file.written = before + after
        elif call.name == "fsync":
            self._fsync(call.path)
        elif call.name == "symlink":
            self._change(call, _File(call.data, call.data, link=True))
        else:
            self._change(call, self.now.get(call.path))

    def sync(self) -> None:
        """Everything is certain (syncfs)."""
        for _, file in self.pending:
            if file is not None:
                file.certain = file.written
        for file in self.now.values():
            if file is not None:
                file.certain = file.written
        self.certain, self.pending = dict(self.now), []

    def states(self, seed: int = 0) -> Iterator[State]:
        """What may be found after a power cut now: all of it, or a seeded choice where that is too much."""
        total = 2 ** len(self.pending)
        for file in set(map(id, self._files())):
            total *= next(len(one.outcomes()) for one in self._files() if id(one) == file)
        if total <= STATES_MOST:
            yield from self._all()
            return
        dice = random.Random(seed)
        yield self._state([True] * len(self.pending), lambda file: file.written)
        yield self._state([False] * len(self.pending), lambda file: file.certain)
        for _ in range(STATES_MOST - 2):
            kept = [dice.random() < 0.5 for _ in self.pending]
            chosen: dict[int, bytes] = {}
            yield self._state(kept, lambda file: chosen.setdefault(id(file), dice.choice(file.outcomes())))  # noqa: B023

    def _files(self) -> list[_File]:
        return [file for file in (*self.certain.values(), *(file for _, file in self.pending)) if file is not None]

    def _all(self) -> Iterator[State]:
        for kept in product((False, True), repeat=len(self.pending)):
            names = self._names(list(kept))
            files = {id(file): file for file in names.values() if file is not None}
            for contents in product(*(file.outcomes() for file in files.values())):
                found = dict(zip(files, contents, strict=True))
                yield {path: _found(file, lambda one: found[id(one)]) for path, file in names.items()}  # noqa: B023

    def _state(self, kept: list[bool], content: Any) -> State:
        return {path: _found(file, content) for path, file in self._names(kept).items()}

    def _names(self, kept: list[bool]) -> Names:
        names = dict(self.certain)
        for keep, (call, file) in zip(kept, self.pending, strict=True):
            if keep:
                _apply(names, call, file)
        return names

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


def _found(file: _File | None, content: Any) -> "bytes | Link | None":
    if file is None:
        return None
    return Link(os.fsdecode(file.certain)) if file.link else content(file)


def _apply(names: Names, call: Call, file: _File | None) -> None:
    if call.name in ("unlink", "rmdir"):
        names.pop(call.path, None)
    elif call.name == "link":
        assert call.target is not None
        names[call.target] = file
    elif call.name == "replace":
        assert call.target is not None
        moved = [path for path in names if path.is_relative_to(call.path)]
        for path in moved:
            names[call.target / path.relative_to(call.path)] = names.pop(path)
        if not moved:
            names[call.target] = file
    else:
        names[call.path] = file


def lay_out(state: State, source: Path, target: Path) -> None:
    """Make `target` what `source` would be after a cut in this state. A name whose directory is lost is lost."""
    for path in sorted(state):
        place = target / path.relative_to(source)
        content = state[path]
        if not place.parent.is_dir() or place.parent.is_symlink():
            continue
        if content is None:
            place.mkdir()
        elif isinstance(content, Link):
            place.symlink_to(content.text)
        else:
            place.write_bytes(content)


def cuts(recording: Recording, disk: Disk | None = None) -> Iterator[tuple[int, Path]]:
    """After each call, the states that a cut may leave there: the number of calls made, and the directory found.

    A directory is gone once the next one is asked for. `disk` is what was there before the recording. They lie in
    memory where that can be had: what goes on from them syncs as often as a device does.
    """
    disk = disk or Disk()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as scratch:
        for made in range(len(recording.calls) + 1):
            if made:
                disk.play(recording.calls[made - 1])
            for number, state in enumerate(islice(disk.states(seed=made), STATES_MOST)):
                place = Path(scratch) / f"{made}-{number}"
                place.mkdir(parents=True)
                lay_out(state, recording.root, place)
                yield made, place
                shutil.rmtree(place)


def disk_of(root: Path) -> Disk:
    """What is below `root` now, all of it certain."""
    disk = Disk()
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            text = os.fsencode(path.readlink())
            disk.now[path] = _File(text, text, link=True)
        elif path.is_dir():
            disk.now[path] = None
        else:
            disk.now[path] = _File(path.read_bytes(), path.read_bytes())
    disk.certain = dict(disk.now)
    return disk
