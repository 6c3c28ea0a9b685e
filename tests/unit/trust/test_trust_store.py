"""device_agent.trust.store: nothing but old or new, wherever the process ends."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_agent.trust.floors import Floors
from device_agent.trust.store import TrustStore, initialise
from fleet_protocol.errors import ProtocolError

CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "link", "unlink", "rmdir")
OLD = {"root.json": b"root 1", "timestamp.json": b"timestamp 1", "targets.json": b"targets 1"}
NEW = {"root.json": b"root 2", "timestamp.json": b"timestamp 2", "targets.json": b"targets 1", "x.json": b"new"}


class EndedError(BaseException):
    """The process is gone; nothing of it happens any more."""


class End:
    """Ends the process at its nth file operation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self.left = monkeypatch, -1
        for name in CALLS:
            monkeypatch.setattr(os, name, self._ending(getattr(os, name)))

    @contextmanager
    def at(self, number: int) -> Iterator[None]:
        self.left = number
        try:
            yield
        except EndedError:
            pass
        finally:
            self.reached, self.left = self.left == 0, -1

    def _ending(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self.left == 0:
                raise EndedError
            if self.left > 0:
                self.left -= 1
            return real(*args, **options)

        return call


def content(state_dir: Path) -> tuple[dict[str, bytes], Floors]:
    with TrustStore.opened(state_dir) as store:
        files = {name: store.read(name) or b"" for name in store.floors.files}
        return files, replace(store.floors, generation=0, files={})


def adopt(state_dir: Path, files: dict[str, bytes], time_s: int) -> None:
    with TrustStore.opened(state_dir) as store:
        store.adopt(files, replace(store.floors, time_s=time_s))


def made(state_dir: Path) -> Path:
    initialise(state_dir, OLD["root.json"])
    adopt(state_dir, OLD, 1)
    return state_dir


def test_rule_2_adopting_leaves_the_old_or_the_new_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = content(made(tmp_path / "old"))
    new = content_after(tmp_path / "new", lambda directory: adopt(directory, NEW, 2))
    end, seen = End(monkeypatch), set()
    for number in range(1_000):
        state_dir = made(tmp_path / str(number))
        with end.at(number):
            adopt(state_dir, NEW, 2)
        after = content(state_dir)
        assert after in (old, new), number
        seen.add(after == new)
        if not end.reached:
            break
        adopt(state_dir, NEW, 2)
        assert content(state_dir) == new, number
        leftovers = {path.name for path in (state_dir / "trust").iterdir()}
        assert len(leftovers) == 3, leftovers
    assert seen == {True, False}


def test_rule_2_saving_leaves_the_old_or_the_new_floors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(state_dir: Path) -> None:
        with TrustStore.opened(state_dir) as store:
            store.save(replace(store.floors, time_s=7))

    end = End(monkeypatch)
    for number in range(1_000):
        state_dir = made(tmp_path / str(number))
        with end.at(number):
            save(state_dir)
        assert content(state_dir)[1].time_s in (1, 7), number
        if not end.reached:
            break
        save(state_dir)
        assert content(state_dir)[1].time_s == 7


def test_beginning_ends_in_a_whole_store_or_in_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half begun store is untrusted, as a torn one is; a person begins again."""
    end, outcomes = End(monkeypatch), set()
    for number in range(1_000):
        state_dir = tmp_path / str(number)
        with end.at(number):
            initialise(state_dir, OLD["root.json"])
        try:
            assert content(state_dir)[0] == {"root.json": OLD["root.json"]}
            outcomes.add("whole")
        except ProtocolError as error:
            assert error.code == "untrusted"
            outcomes.add("none")
            initialise(state_dir, OLD["root.json"], replace_store=True)
            assert content(state_dir)[0] == {"root.json": OLD["root.json"]}
        if not end.reached:
            break
    assert outcomes == {"whole", "none"}


@pytest.mark.parametrize("number", range(3))
def test_a_beginning_that_the_disk_refuses_leaves_nothing_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Nobody has trusted it yet: the next try needs no decision of a person."""
    left = [number]

    def full(descriptor: int, data: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        try:
            initialise(tmp_path, OLD["root.json"])
        except OSError as error:
            assert error.errno == errno.ENOSPC
    initialise(tmp_path, OLD["root.json"])
    assert content(tmp_path)[0] == {"root.json": OLD["root.json"]}


def test_what_did_not_change_is_not_written(tmp_path: Path) -> None:
    made(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "trust").rglob("*.json")}
    adopt(tmp_path, OLD, 1)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "trust").rglob("*.json")} == before


def test_an_unchanged_file_is_kept_and_not_copied(tmp_path: Path) -> None:
    made(tmp_path)
    inode = next((tmp_path / "trust").rglob("targets.json")).stat().st_ino
    adopt(tmp_path, NEW, 2)
    assert next((tmp_path / "trust").rglob("targets.json")).stat().st_ino == inode


def test_the_copy_to_work_on_is_a_copy_and_does_not_stay(tmp_path: Path) -> None:
    made(tmp_path)
    with TrustStore.opened(tmp_path) as store, store.copied() as work:
        (work / "root.json").write_bytes(b"scribbled")
    assert content(tmp_path)[0] == OLD
    assert not work.exists()


def test_files_and_directories_are_the_owner_s_alone(tmp_path: Path) -> None:
    made(tmp_path)
    for path in [tmp_path / "trust", *(tmp_path / "trust").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_store_that_never_was_is_untrusted(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="fairlead-agent init"), TrustStore.opened(tmp_path):
        pass


@pytest.mark.parametrize("name", ["../root.json", "/etc/passwd", "a/b.json"])
def test_floors_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    made(tmp_path)
    with TrustStore.opened(tmp_path) as store:
        store.save(replace(store.floors, files={**store.floors.files, name: "0" * 64}))
    with pytest.raises(ProtocolError, match="untrusted"), TrustStore.opened(tmp_path):
        pass


def content_after(state_dir: Path, change: Callable[[Path], None]) -> tuple[dict[str, bytes], Floors]:
    change(made(state_dir))
    return content(state_dir)
