"""The contract of the Journal port, on the real adapter and on the fake; and what only a disk can do."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from device_agent.adapters.journal import TinyJournal
from device_agent.core.machine import initial
from device_agent.core.record import Failure, PendingReport, Record
from device_agent.ports import Journal
from fleet_protocol.errors import InstallError, ProtocolError
from tests.fakes.device_journal import MemoryJournal

Reopen = Callable[[], Journal]


@pytest.fixture(params=["disk", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Gives the journal of one device, as a new process would find it."""
    memory = MemoryJournal("node-1")
    return (lambda: memory) if request.param == "memory" else lambda: TinyJournal(tmp_path, "node-1")


def _record(number: int) -> Record:
    pending = PendingReport(counter=number, wall_s=1.5, attempt=None, attack="signature")
    failure = Failure(number=1, code="unhealthy", detail='503 "é" \u2028')
    return Record(device="node-1", report_counter=number, pending=(pending,), failures={f"d-{number}": failure})


def test_a_device_that_never_saved_has_a_fresh_record(reopen: Reopen) -> None:
    assert reopen().load() == initial("node-1")
    assert reopen().load() == initial("node-1")


def test_the_newest_record_is_loaded(reopen: Reopen) -> None:
    journal = reopen()
    for number in range(1, 4):
        journal.save(_record(number))
        assert journal.load() == _record(number)
        assert reopen().load() == _record(number)


def test_saving_the_same_record_twice_changes_nothing(reopen: Reopen) -> None:
    reopen().save(_record(1))
    reopen().save(_record(1))
    assert reopen().load() == _record(1)


def test_a_record_that_shrinks_leaves_nothing_behind(reopen: Reopen) -> None:
    reopen().save(_record(1))
    reopen().save(initial("node-1"))
    assert reopen().load() == initial("node-1")


def _saved(state_dir: Path) -> Path:
    TinyJournal(state_dir).save(_record(1))
    return state_dir / "journal" / "record.json"


def _assert_untrusted(state_dir: Path) -> None:
    with pytest.raises(ProtocolError) as refusal:
        TinyJournal(state_dir).load()
    assert refusal.value.code == "untrusted"


def test_a_lost_record_is_not_a_fresh_one(tmp_path: Path) -> None:
    _saved(tmp_path).unlink()
    _assert_untrusted(tmp_path)


def test_a_torn_record_is_refused_at_every_length(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        _assert_untrusted(tmp_path)


def test_a_record_with_any_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        _assert_untrusted(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"_default": []}',
        b'{"_default": {"one": {}}}',
        b'{"_default": {"1": {}}}',
        b'{"_default": {"1": {"format": 2, "sha256": "", "record": {}}}}',
        b'{"_default": {"2": {"format": 1, "sha256": "", "record": {}}}}',
        b"\0" * 4096,
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "record.json").write_bytes(data)
    _assert_untrusted(tmp_path)


def test_what_can_not_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal" / "record.json").mkdir(parents=True)
    _assert_untrusted(tmp_path)


def test_a_refused_journal_is_left_for_a_person_to_look_at(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    path.write_bytes(b"torn")
    _assert_untrusted(tmp_path)
    assert path.read_bytes() == b"torn"


def test_a_full_disk_is_told_and_the_old_record_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _saved(tmp_path)
    journal = TinyJournal(tmp_path)
    journal.load()

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(InstallError) as failure:
            journal.save(_record(2))
    assert failure.value.code == "no-space"
    assert journal.load() == TinyJournal(tmp_path).load() == _record(1)
    journal.save(_record(2))
    assert TinyJournal(tmp_path).load() == _record(2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """1 MiB of the journal's own."""
    if os.geteuid():
        pytest.skip("needs root, to mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def _fill(disk: Path) -> None:
    with suppress(OSError), (disk / "hog").open("ab", buffering=0) as hog:
        while hog.write(bytes(4_096)):
            pass


def _grown(number: int, size: int) -> Record:
    failures = {f"d-{place}": Failure(number=number, code="io", detail="x" * 500) for place in range(size // 500)}
    return Record(device="node-1", report_counter=number, failures=failures)


@pytest.mark.parametrize("size", [0, 20_000, 60_000])
def test_a_disk_that_others_fill_up_takes_the_next_records(small_disk: Path, size: int) -> None:
    """Rule 4: whatever is done for want of room must be written down first."""
    TinyJournal(small_disk).save(_grown(1, size))
    for number in range(2, 12):
        _fill(small_disk)
        TinyJournal(small_disk).save(_grown(number, size + 500 * number))
        assert TinyJournal(small_disk).load() == _grown(number, size + 500 * number)


def test_room_that_others_took_is_held_again_once_there_is_some(small_disk: Path) -> None:
    """Rule 4."""
    journal = TinyJournal(small_disk)
    journal.save(_record(1))
    (small_disk / "journal/room").unlink()
    _fill(small_disk)
    with pytest.raises(InstallError) as failure:
        journal.save(_record(2))
    assert failure.value.code == "no-space"
    (small_disk / "hog").unlink()
    journal.save(_record(2))
    _fill(small_disk)
    journal.save(_record(3))
    assert TinyJournal(small_disk).load() == _record(3)


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
