"""What lies outside the slots, over every power cut and every kill: what is changed was kept before, and comes back.

This is invariant D15.
"""

import json
from pathlib import Path

import pytest

from device_agent.installers import backup as backup_module
from device_agent.installers.backup import Backup
from device_agent.installers.system_files import SystemFiles
from tests.fakes.power_cuts import Recording, cuts, disk_of

OLD = {"/etc/a.conf": b"old a", "/etc/b.conf": b"old b"}
NEW = {"/etc/a.conf": b"new a", "/etc/b.conf": b"new b", "/etc/c.conf": b"new c"}


def _system(root: Path) -> dict[str, bytes]:
    return {f"/etc/{path.name}": path.read_bytes() for path in (root / "system/etc").iterdir() if path.suffix != ".new"}


def _device(root: Path) -> tuple[Backup, SystemFiles]:
    return Backup(SystemFiles(root / "system"), root / "backup/app/service.-"), SystemFiles(root / "system")


def _made(root: Path) -> None:
    (root / "backup/app").mkdir(parents=True)
    (root / "system/etc").mkdir(parents=True)
    for path, data in OLD.items():
        (root / "system" / path[1:]).write_bytes(data)


def _change(root: Path) -> None:
    backup, files = _device(root)
    backup.note({"enabled": True})
    for path, data in NEW.items():
        backup.keep(path)
        files.write(path, data)


def test_what_was_changed_comes_back_after_every_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "device"
    _made(root)
    recording, disk = Recording(root), disk_of(root)
    with monkeypatch.context() as patch:
        recording.start(patch)
        _change(root)
    for made, place in cuts(recording, disk):
        backup, _ = _device(place)
        changed = _system(place) != OLD
        assert not changed or backup.facts == {"enabled": True}, f"after call {made}: changed, and nothing was kept"
        backup.restore()
        assert _system(place) == OLD, f"after call {made}"
        _change(place)
        assert _system(place) == NEW
        backup.restore()
        backup.drop()
        assert (_system(place), backup.facts, backup.paths) == (OLD, None, ())


def test_a_restore_ends_the_same_after_every_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "device"
    _made(root)
    _change(root)
    recording, disk = Recording(root), disk_of(root)
    with monkeypatch.context() as patch:
        recording.start(patch)
        _device(root)[0].restore()
        restored = len(recording.calls)
        _device(root)[0].drop()
    for made, place in cuts(recording, disk):
        backup, _ = _device(place)
        if made < restored:
            backup.restore()
        assert _system(place) == OLD, f"after call {made}"
        backup.drop()
        assert not (place / "backup/app/service.-").exists()


class KilledError(Exception):
    """The process is gone."""


@pytest.mark.parametrize("point", ["after_note", "after_copy", "after_list", "after_restore", "after_drop"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_killed_in_a_backup(point: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _made(tmp_path)
    left = [times]

    def crash(name: str) -> None:
        if name == f"backup.{point}":
            left[0] -= 1
            if not left[0]:
                raise KilledError

    monkeypatch.setattr(backup_module, "crash_point", crash)
    try:
        _change(tmp_path)
        _device(tmp_path)[0].restore()
        _device(tmp_path)[0].drop()
    except KilledError:
        _device(tmp_path)[0].restore()
        assert _system(tmp_path) == OLD
        _device(tmp_path)[0].drop()
    assert _system(tmp_path) == OLD
    assert not (tmp_path / "backup/app/service.-").exists()


def test_the_list_is_the_last_to_know_and_the_first_to_go(tmp_path: Path) -> None:
    """Rules 2 and 4: nothing is named before it is there."""
    _made(tmp_path)
    _change(tmp_path)
    place = tmp_path / "backup/app/service.-"
    kept = json.loads((place / "kept.json").read_text())["files"]
    copies = {entry["copy"] for entry in kept.values() if entry["kind"] == "file"}
    assert {path.name for path in place.iterdir()} == {"kept.json", *copies}
