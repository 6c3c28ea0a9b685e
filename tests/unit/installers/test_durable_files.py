"""File operations that survive a power cut: device_agent/adapters/files.py."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.adapters.files import (
    make_dir,
    read_link,
    read_optional,
    remove,
    remove_tree,
    storage_error,
    storing,
    swap_symlink,
    write_atomic,
)
from fleet_protocol.errors import InstallError


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Rule 1."""
    path = tmp_path / "file"
    for data in (b"one", b"", b"three" * 100_000):
        write_atomic(path, data)
        assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o600
    write_atomic(path, b"x", mode=0o640, durable=False)
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 1: a full disk."""
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("device_agent.adapters.files.os.write", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "leave",
    [lambda path: path.symlink_to("precious"), os.mkfifo, Path.mkdir, lambda path: path.write_bytes(b"longer than it")],
    ids=["link", "pipe", "directory", "file"],
)
def test_a_leftover_makes_room_and_is_not_followed(tmp_path: Path, leave: Callable[[Path], object]) -> None:
    (tmp_path / "precious").write_bytes(b"x")
    leave(tmp_path / "file.new")
    write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "precious"]
    assert (tmp_path / "precious").read_bytes() == b"x"


@pytest.mark.parametrize("leave", [os.mkfifo, Path.mkdir], ids=["pipe", "directory"])
def test_what_is_no_file_is_not_read(tmp_path: Path, leave: Callable[[Path], object]) -> None:
    leave(tmp_path / "file")
    with pytest.raises(OSError, match="regular"):
        read_optional(tmp_path / "file", 3)


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert read_optional(path, 3) is None
    path.write_bytes(b"abc")
    assert read_optional(path, 3) == b"abc"
    with pytest.raises(OSError, match="larger"):
        read_optional(path, 2)
    with pytest.raises(InstallError) as caught, storing("reading"):
        read_optional(path, 2)
    assert caught.value.code == "io", "more room on the disk would not help"


def test_a_high_bound_is_not_asked_for_at_once() -> None:
    """/proc answers a read of many MiB with ENOMEM, though what is there is a line."""
    assert read_optional(Path("/proc/sys/kernel/osrelease"), 256 * 1024 * 1024) == f"{os.uname().release}\n".encode()


def test_a_file_that_does_not_say_its_size_is_read_whole() -> None:
    found = read_optional(Path("/proc/kallsyms"), 256 * 1024 * 1024)
    assert found is not None
    assert len(found) > 64 * 1024
    assert found.endswith(b"\n")


def test_everything_may_run_twice(tmp_path: Path) -> None:
    """Rule 3."""
    for _ in range(2):
        make_dir(tmp_path / "a/b/c")
        swap_symlink(tmp_path / "link", "a")
    for _ in range(2):
        remove(tmp_path / "link")
        remove_tree(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_replaced_by_rename(tmp_path: Path) -> None:
    """Rule 2."""
    link = tmp_path / "link"
    assert read_link(link) is None
    swap_symlink(link, "a")
    before = link.lstat().st_ino
    swap_symlink(link, "b")
    assert read_link(link) == "b"
    assert link.lstat().st_ino != before
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="Invalid"):
        swap_symlink(tmp_path / "file", "b")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "no-space"),
        (errno.EDQUOT, "no-space"),
        (errno.EFBIG, "no-space"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "io"),
        (errno.EACCES, "io"),
    ],
)
def test_errors_of_the_disk_have_codes(number: int, code: str) -> None:
    assert storage_error(OSError(number, os.strerror(number)), "doing it").code == code
    with pytest.raises(InstallError) as caught, storing("doing it"):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == code
    assert "doing it" in caught.value.detail
