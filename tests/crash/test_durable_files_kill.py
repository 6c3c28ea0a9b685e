"""Killed before any of its fsyncs and called again, a durable call means what it says: rule 3 of the durable files."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.adapters.files import make_dir, remove, remove_tree
from device_agent.installers.system_files import SystemFiles
from tests.fakes.power_cuts import Recording, disk_of, lay_out

CALLS: dict[str, Callable[[Path], None]] = {
    "remove": lambda root: remove(root / "old/file"),
    "remove_tree": lambda root: remove_tree(root / "old"),
    "make_dir": lambda root: make_dir(root / "new/below"),
    "a directory of the system": lambda root: SystemFiles(root).make_dir("/new/below"),
    "a link of the system": lambda root: SystemFiles(root).link("/old/file", "elsewhere"),
}


class KilledError(Exception):
    """The process is gone."""


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("synced", [0, 1])
def test_killed_before_a_fsync(
    call: Callable[[Path], None], synced: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "device"
    (root / "old").mkdir(parents=True)
    (root / "old/file").write_bytes(b"active")
    recording, disk = Recording(root), disk_of(root)
    with monkeypatch.context() as patch:
        recording.start(patch)
        _until_killed(call, root, synced)
        call(root)
    for one in recording.calls:
        disk.play(one)
    for number, state in enumerate(disk.states()):
        found = tmp_path / f"found{number}"
        found.mkdir()
        lay_out(state, root, found)
        assert _names(found) == _names(root)


def _names(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in root.rglob("*"))


def _until_killed(call: Callable[[Path], None], root: Path, synced: int) -> None:
    """So many fsyncs are made; a call that needs no more goes on to its end."""
    left = [synced]

    def killed(descriptor: int) -> None:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        real(descriptor)

    real = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        try:
            call(root)
        except KilledError:
            return


def test_what_can_not_be_synced_was_not_changed_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state directory may be mounted below a file system that is never written and knows no fsync."""

    def unknown(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", unknown)
    make_dir(tmp_path)
    for gone in (tmp_path / "file", tmp_path / "none/file"):
        remove(gone)
        remove_tree(gone)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="Invalid"):
        remove(tmp_path / "file")
