"""The backup by its rules (device_agent/installers/backup.py)."""

import os
import stat
from functools import partial
from pathlib import Path

import pytest

from device_agent.installers import backup as backup_module
from device_agent.installers.backup import Backup
from device_agent.installers.system_files import SystemFiles
from fleet_protocol.errors import InstallError


@pytest.fixture
def system(tmp_path: Path) -> Path:
    root = tmp_path / "system"
    (root / "etc").mkdir(parents=True)
    (root / "etc/conf").write_bytes(b"old")
    (root / "etc/conf").chmod(0o640)
    return root


@pytest.fixture
def backup(tmp_path: Path, system: Path) -> Backup:
    return Backup(SystemFiles(system), tmp_path / "backup")


def test_what_is_kept_is_what_stood_there_first(backup: Backup, system: Path) -> None:
    """Rule 1."""
    backup.keep("/etc/conf")
    (system / "etc/conf").write_bytes(b"new")
    backup.keep("/etc/conf")
    assert backup.kept("/etc/conf") == b"old"
    backup.restore()
    assert (system / "etc/conf").read_bytes() == b"old"


def test_facts_are_noted_once(backup: Backup) -> None:
    assert backup.facts is None
    assert backup.note({"loaded": True}) == {"loaded": True}
    assert backup.note({"loaded": False}) == {"loaded": True}
    backup.keep("/etc/conf")
    assert backup.facts == {"loaded": True}
    assert backup.paths == ("/etc/conf",)


def test_mode_owner_link_and_absence_come_back(backup: Backup, system: Path) -> None:
    """Rule 3."""
    (system / "etc/link").symlink_to("../somewhere")
    if os.geteuid() == 0:
        os.chown(system / "etc/conf", 7, 8)
    before = (system / "etc/conf").stat()
    for path in ("/etc/conf", "/etc/link", "/etc/none", "/etc/none/below", "/no/such/directory"):
        backup.keep(path)
    files = SystemFiles(system)
    files.write("/etc/conf", b"new", mode=0o777)
    files.write("/etc/link", b"a file now")
    files.write("/etc/none", b"new")
    files.write("/no/such/directory", b"new")
    for _ in range(2):
        backup.restore()
        after = (system / "etc/conf").stat()
        assert stat.S_IMODE(after.st_mode) == 0o640
        assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
        assert str((system / "etc/link").readlink()) == "../somewhere"
        assert not (system / "etc/none").exists()
        assert not (system / "no/such/directory").exists()


def test_an_altered_copy_is_not_put_back(backup: Backup, system: Path, tmp_path: Path) -> None:
    """Attack B11: and nothing else is either."""
    (system / "etc/other").write_bytes(b"old")
    for path in ("/etc/conf", "/etc/other"):
        backup.keep(path)
        (system / path[1:]).write_bytes(b"new")
    (tmp_path / "backup/0").write_bytes(b"0ld")
    with pytest.raises(InstallError) as caught:
        backup.restore()
    assert caught.value.code == "altered"
    assert (system / "etc/other").read_bytes() == b"new"


def test_a_directory_is_not_kept(backup: Backup) -> None:
    with pytest.raises(InstallError) as caught:
        backup.keep("/etc")
    assert caught.value.code == "occupied"


def test_a_long_list_is_read_again(backup: Backup, system: Path) -> None:
    """A package may have thousands of configuration files: here it is the links' texts that are long."""
    paths = [f"/etc/link{number}" for number in range(100)]
    for path in paths:
        (system / path[1:]).symlink_to("x" * 4_000)
    backup.keep(*paths)
    (system / paths[0][1:]).unlink()
    backup.restore()
    assert backup.paths == tuple(paths)
    assert (system / paths[0][1:]).is_symlink()


def test_a_list_that_could_not_be_read_again_is_not_written(backup: Backup, monkeypatch: pytest.MonkeyPatch) -> None:
    backup.keep("/etc/conf")
    monkeypatch.setattr(backup_module, "_LIST_MOST", 300)
    for too_much in (partial(backup.keep, "/etc/" + "x" * 250), partial(backup.note, {"packages": "x" * 300})):
        with pytest.raises(InstallError) as caught:
            too_much()
        assert caught.value.code == "unsupported"
    assert (backup.facts, backup.paths) == (None, ("/etc/conf",))


@pytest.mark.parametrize("path", ["etc/conf", "/etc/../conf", "//etc/conf", "/etc/./conf", "/", "", "/etc/"])
def test_only_plain_absolute_paths_are_taken(backup: Backup, path: str) -> None:
    with pytest.raises(InstallError):
        backup.keep(path)


def test_dropping_twice_is_dropping_once(backup: Backup, tmp_path: Path) -> None:
    backup.note({})
    for _ in range(2):
        backup.drop()
        assert not (tmp_path / "backup").exists()
        assert backup.facts is None
    backup.restore()


def test_a_file_is_readable_by_the_system_whatever_the_umask_is(system: Path) -> None:
    before = os.umask(0o077)
    try:
        SystemFiles(system).write("/etc/new/deep/conf", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((system / "etc/new/deep/conf").stat().st_mode) == 0o644
    assert stat.S_IMODE((system / "etc/new/deep").stat().st_mode) == 0o755
