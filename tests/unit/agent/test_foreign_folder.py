"""A folder that somebody else fills: what is read from it, and that it can be emptied, whatever is in it."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.adapters.foreign_folder import empty_folder, open_plain, read_plain, remove_entry
from tests.fakes.worker_account import account

DEEP = 1_100
"""More levels than there are descriptors, or frames on Python's stack."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"secret")
    return path


def deep(path: Path) -> None:
    """A tower of directories, each made from the one above: no path is that long."""
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def tree(path: Path) -> None:
    (path / "a" / "b").mkdir(parents=True)
    for number in range(50):
        (path / "a" / f"file-{number}").write_bytes(b"x")
        (path / "a" / "b" / f"directory-{number}").mkdir()


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


TRICKS: dict[str, Callable[[Path, Path], object]] = {
    "a link to a file": lambda entry, secret: entry.symlink_to(secret),
    "a link to a folder": lambda entry, secret: entry.symlink_to(secret.parent),
    "a link to nothing": lambda entry, secret: entry.symlink_to("nothing"),
    "a link to itself": lambda entry, secret: entry.symlink_to(entry),
    "a second name": lambda entry, secret: os.link(secret, entry),
    "a pipe": lambda entry, secret: os.mkfifo(entry),
    "a socket": lambda entry, secret: bound_socket(entry),
    "a directory": lambda entry, secret: entry.mkdir(),
    "a tree": lambda entry, secret: tree(entry),
}
each_trick = pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)


def test_a_plain_file_is_read(folder: Path) -> None:
    (folder / "file").write_bytes(b"12345")
    assert read_plain(folder / "file", 5) == b"12345"
    with pytest.raises(OSError, match="larger") as caught:
        read_plain(folder / "file", 4)
    assert caught.value.errno == errno.EOVERFLOW
    with pytest.raises(FileNotFoundError):
        read_plain(folder / "none", 5)
    with pytest.raises(FileNotFoundError):
        read_plain(folder / "none" / "file", 5)


@each_trick
def test_nothing_else_is_read(folder: Path, secret: Path, trick: Callable[[Path, Path], object]) -> None:
    trick(folder / "entry", secret)
    with pytest.raises(OSError):
        read_plain(folder / "entry", 100)
    with pytest.raises(OSError) as caught:
        open_plain(folder / "entry", os.O_RDWR | os.O_CREAT)
    assert caught.value.errno in (errno.EINVAL, errno.ELOOP, errno.EISDIR, errno.ENXIO)
    remove_entry(folder / "entry")
    assert secret.read_bytes() == b"secret"


@each_trick
def test_anything_can_be_removed(folder: Path, secret: Path, trick: Callable[[Path, Path], object]) -> None:
    (folder / "stays").write_bytes(b"stays")
    trick(folder / "entry", secret)
    remove_entry(folder / "entry")
    assert [path.name for path in folder.iterdir()] == ["stays"]
    assert secret.read_bytes() == b"secret"
    remove_entry(folder / "entry")


def test_no_depth_is_too_deep(folder: Path) -> None:
    deep(folder / "entry")
    remove_entry(folder / "entry")
    assert list(folder.iterdir()) == []


@each_trick
def test_a_folder_is_emptied_but_for_plain_files_of_some_names(
    folder: Path, secret: Path, trick: Callable[[Path, Path], object]
) -> None:
    (folder / "kept").write_bytes(b"kept")
    (folder / "other").write_bytes(b"other")
    trick(folder / "entry", secret)
    trick(folder / "kept too", secret)
    empty_folder(folder, but=("kept", "kept too", "not there"))
    assert [path.name for path in folder.iterdir()] == ["kept"]
    assert secret.read_bytes() == b"secret"
    assert secret.parent.is_dir()


def test_no_folder_is_empty(folder: Path) -> None:
    empty_folder(folder / "none")
    folder.rmdir()
    folder.write_bytes(b"a file is no folder")
    empty_folder(folder)
    assert folder.read_bytes() == b"a file is no folder"


def test_a_new_file_is_the_owner_s_alone(folder: Path) -> None:
    os.close(open_plain(folder / "file", os.O_RDWR | os.O_CREAT))
    assert (folder / "file").stat().st_mode & 0o777 == 0o600


def test_a_file_of_another_owner_is_not_read(folder: Path) -> None:
    """As when its other name was removed since: the link is then the only one."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of two owners")
    user = account()
    (folder / "file").write_bytes(b"secret")
    os.chown(folder, user.uid, user.gid)
    with pytest.raises(OSError) as caught:
        read_plain(folder / "file", 100)
    assert caught.value.errno == errno.EINVAL
    empty_folder(folder, but=("file",))
    assert list(folder.iterdir()) == []
