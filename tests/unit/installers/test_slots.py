"""Slots and their digests: device_agent/installers/slots.py and tree.py."""

import os
from pathlib import Path

import pytest

from device_agent.installers.durability import sync_tree
from device_agent.installers.slots import Slots
from device_agent.installers.tree import TreeRecords, tree_digest, walk
from fleet_protocol.errors import InstallError, ProtocolError


def tree(root: Path) -> Path:
    (root / "dir/inner").mkdir(parents=True)
    (root / "dir/inner/file").write_bytes(b"one")
    (root / "dir-x").write_bytes(b"two")
    (root / "dir.x").write_bytes(b"")
    return root


def test_the_digest_is_the_same_from_records_in_any_order_and_from_the_disk(tmp_path: Path) -> None:
    tree(tmp_path)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    rows = [
        ("dir", True, "-", 0),
        ("dir/inner", True, "-", 0),
        ("dir/inner/file", False, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", 3),
        ("dir-x", False, "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3", 3),
        ("dir.x", False, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0),
    ]
    for order in (rows, rows[::-1]):
        records = TreeRecords()
        for path, directory, digest, size in order:
            records.add(path, directory=directory, mode=0o755 if directory else 0o644, size=size, digest=digest)
        assert records.digest() == tree_digest(tmp_path)


def _touch(root: Path) -> None:
    os.utime(root / "dir-x", (1, 1))


def test_times_and_owners_are_not_part_of_the_digest(tmp_path: Path) -> None:
    before = tree_digest(tree(tmp_path))
    _touch(tmp_path)
    assert tree_digest(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "dir-x").write_bytes(b"twp"),
        lambda root: (root / "dir-x").write_bytes(b"two "),
        lambda root: (root / "dir-x").chmod(0o755),
        lambda root: (root / "dir").chmod(0o700),
        lambda root: (root / "dir-x").unlink(),
        lambda root: (root / "dir-x").rename(root / "dir-y"),
        lambda root: (root / "dir/inner/file").rename(root / "dir/file"),
        lambda root: (root / "more").mkdir(),
        lambda root: (root / ".hidden").write_bytes(b""),
    ],
)
def test_every_change_shows(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    """Attacks B9 and B11."""
    before = tree_digest(tree(tmp_path))
    change(tmp_path)
    assert tree_digest(tmp_path) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "link").symlink_to("dir-x"),
        lambda root: (root / "second").hardlink_to(root / "dir-x"),
        lambda root: os.mkfifo(root / "fifo"),
        lambda root: (root / "new\nline").write_bytes(b""),
        lambda root: (root / os.fsdecode(b"\xff")).write_bytes(b""),
        lambda root: (root / ("d/" * 40)).mkdir(parents=True),
    ],
)
def test_what_no_installer_writes_is_altered(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    tree(tmp_path)
    change(tmp_path)
    with pytest.raises(InstallError) as caught:
        tree_digest(tmp_path)
    assert caught.value.code == "altered"


def test_a_slot_that_is_a_link_is_altered(tmp_path: Path) -> None:
    tree(tmp_path / "real")
    (tmp_path / "slot").symlink_to("real")
    with pytest.raises(InstallError) as caught:
        tree_digest(tmp_path / "slot")
    assert caught.value.code == "altered"


def test_a_walk_closes_what_it_opens(tmp_path: Path) -> None:
    tree(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    walked = walk(tmp_path)
    next(walked)
    walked.close()  # type: ignore[attr-defined]
    list(walk(tmp_path))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(("entries", "synced"), [(64, "every piece"), (65, "the file system")])
def test_a_tree_is_synced_piece_by_piece_or_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: int, synced: str
) -> None:
    """No piece is forgotten, nor the two directories that hold the names."""
    root, seen, fsync = tree(tmp_path / "slot"), set[Path](), os.fsync

    def noting(descriptor: int) -> None:
        seen.add(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    sync_tree(root, entries)
    assert seen == ({root.parent, root, *root.rglob("*")} if synced == "every piece" else set())


def slots_of(tmp_path: Path) -> Slots:
    slots = Slots(tmp_path, "app")
    slots.begin("a", "content")
    (slots.path("a") / "file").write_bytes(b"x")
    return slots


def test_the_active_slot_is_never_written(tmp_path: Path) -> None:
    """Rule 1: the link is read, whatever the caller says."""
    slots = slots_of(tmp_path)
    slots.switch("a")
    for write in (lambda: slots.begin("a", "content"), lambda: slots.begin("a", "other"), lambda: slots.clear("a")):
        with pytest.raises(InstallError) as caught:
            write()
        assert caught.value.code == "occupied"
    assert (slots.path("a") / "file").exists()
    assert slots.active() == "a"


def test_the_switch_is_a_link_that_is_replaced(tmp_path: Path) -> None:
    """Rule 2."""
    slots = slots_of(tmp_path)
    assert slots.active() is None
    slots.begin("b", "content")
    for slot in ("a", "a", "b", "a"):
        slots.switch(slot)  # type: ignore[arg-type]
        assert slots.active() == slot
    slots.leave()
    slots.leave()
    assert slots.active() is None
    assert sorted(path.name for path in (tmp_path / "slots/app").iterdir()) == ["a", "a.staging", "b", "b.staging"]


def test_a_half_made_link_does_not_matter(tmp_path: Path) -> None:
    slots = slots_of(tmp_path)
    (tmp_path / "slots/app/current.new").symlink_to("b")
    slots.switch("a")
    assert slots.active() == "a"


def test_a_slot_that_is_not_there_does_not_become_active(tmp_path: Path) -> None:
    with pytest.raises(InstallError):
        slots_of(tmp_path).switch("b")


@pytest.mark.parametrize("target", ["/etc", "../../x", "c", ""])
def test_a_link_that_no_agent_made_is_altered(tmp_path: Path, target: str) -> None:
    slots = slots_of(tmp_path)
    (tmp_path / "slots/app/current").symlink_to(target or ".")
    with pytest.raises(InstallError) as caught:
        slots.active()
    assert caught.value.code == "altered"


def test_only_content_of_the_same_name_is_continued(tmp_path: Path) -> None:
    """Rule 3."""
    slots = slots_of(tmp_path)
    assert slots.begin("a", "content")
    assert (slots.path("a") / "file").exists()
    assert not slots.begin("a", "other")
    assert list(slots.path("a").iterdir()) == []
    (slots.path("a") / "file").write_bytes(b"x")
    slots.settle("a")
    assert not slots.begin("a", "other")
    assert list(slots.path("a").iterdir()) == []


def test_content_whose_directory_was_never_made_is_not_continued(tmp_path: Path) -> None:
    """Rule 3: power was lost between the marker and the directory."""
    slots = slots_of(tmp_path)
    (slots.path("a") / "file").unlink()
    slots.path("a").rmdir()
    assert not slots.begin("a", "content")
    assert slots.path("a").is_dir()


def test_a_slot_that_is_begun_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, fsync = [False], os.fsync

    def noting(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path / "slots/app":
            there.append((tmp_path / "slots/app/b").is_dir())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    slots_of(tmp_path).begin("b", "content")
    assert there[-1], "the package's directory is synced after the slot's name is in it"


def test_a_slot_is_opened_itself_and_for_everybody_to_read(tmp_path: Path) -> None:
    slots = slots_of(tmp_path)
    slots.path("a").chmod(0o700)
    with slots.opened("a") as descriptor:
        assert os.fstat(descriptor).st_mode & 0o7777 == 0o755
    slots.path("b").symlink_to("a")
    with pytest.raises(OSError, match="directory"), slots.opened("b"):
        raise AssertionError("a link was followed")


def test_clearing_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_bytes(b"x")
    slots = slots_of(tmp_path)
    (slots.path("a") / "link").symlink_to(tmp_path / "precious")
    slots.clear("a")
    slots.path("b").symlink_to(tmp_path / "precious")
    slots.clear("b")
    slots.clear("b")
    assert (tmp_path / "precious/file").exists()
    assert not slots.path("a").exists()


def test_names_are_checked(tmp_path: Path) -> None:
    """Attack B14."""
    with pytest.raises(ProtocolError):
        Slots(tmp_path, "../etc")
    with pytest.raises(InstallError):
        slots_of(tmp_path).path("../b")  # type: ignore[arg-type]


def test_verify_says_what_differs(tmp_path: Path) -> None:
    slots = slots_of(tmp_path)
    slots.verify("a", tree_digest(slots.path("a")))
    for digest in ("0" * 64, ""):
        with pytest.raises(InstallError) as caught:
            slots.verify("a", digest)
        assert caught.value.code == "altered"
    with pytest.raises(InstallError):
        slots.verify("b", "0" * 64)
