"""A power cut at every call of journal, outbox and spool: what is found is exactly the old or the new state.

This is invariant D13.
"""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.adapters import files
from device_agent.adapters.journal import TinyJournal
from device_agent.adapters.outbox import DiskOutbox
from device_agent.adapters.spool import DocumentSpool
from device_agent.core.machine import initial
from device_agent.core.record import Failure, Record
from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError
from tests.fakes.power_cuts import Recording, cuts


def _records() -> list[Record]:
    """Growing, then shrinking again, so that a torn overwrite of either kind would show."""
    sizes = (0, 5, 40, 3, 0)
    return [
        Record(
            device="node-1",
            report_counter=number,
            failures={f"d-{place}": Failure(number=1, code="io", detail="x" * 50) for place in range(size)},
        )
        for number, size in enumerate(sizes, start=1)
    ]


def test_every_power_cut_leaves_the_old_or_the_new_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path / "device")
    recording.root.mkdir()
    ended = [0]
    records = _records()
    with monkeypatch.context() as patch:
        recording.start(patch)
        journal = TinyJournal(recording.root)
        for record in records:
            journal.save(record)
            ended.append(len(recording.calls))
    history = [initial(""), *records]
    seen: set[int] = set()
    looked_at = 0
    for made, place in cuts(recording):
        done = max(index for index, end in enumerate(ended) if end <= made)
        found = history.index(TinyJournal(place).load())
        assert found in (done, done + 1), f"after call {made} of {len(recording.calls)}: record {found}, saved {done}"
        seen.add(found)
        looked_at += 1
    assert seen == set(range(len(history)))
    assert looked_at > 2 * len(recording.calls)


def test_every_power_cut_on_a_full_disk_leaves_the_old_or_the_new_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 4: the room is let go before the record is written, and held again after it."""
    recording = Recording(tmp_path / "device")
    recording.root.mkdir()
    ended = [0]
    records = _records()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", _full_while((recording.root / "journal/room").exists, os.write))
        recording.start(patch)
        journal = TinyJournal(recording.root)
        for record in records:
            journal.save(record)
            ended.append(len(recording.calls))
    assert [call.name for call in recording.calls if call.path.name == "room"].count("unlink") == len(records) - 1
    history = [initial(""), *records]
    for made, place in cuts(recording):
        done = max(index for index, end in enumerate(ended) if end <= made)
        assert history.index(TinyJournal(place).load()) in (done, done + 1)


def _full_while(there: Callable[[], bool], real: Callable[..., int]) -> Callable[..., int]:
    def write(descriptor: int, data: bytes) -> int:
        if there():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    return write


def test_a_device_goes_on_from_every_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cut leaves lying about does not get in the way of the next save."""
    recording = Recording(tmp_path / "device")
    recording.root.mkdir()
    with monkeypatch.context() as patch:
        recording.start(patch)
        journal = TinyJournal(recording.root)
        for record in _records()[:2]:
            journal.save(record)
    newest = _records()[2]
    for _, place in cuts(recording):
        TinyJournal(place).save(newest)
        assert TinyJournal(place).load() == newest


def test_every_power_cut_leaves_each_report_or_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path / "device")
    recording.root.mkdir()
    reports = {counter: b"report %d " % counter * 20 for counter in (1, 2, 3)}
    ended: list[tuple[int, set[int]]] = [(0, set())]
    with monkeypatch.context() as patch:
        recording.start(patch)
        outbox = DiskOutbox(recording.root)
        for counter, envelope in reports.items():
            outbox.put(counter, envelope)
            ended.append((len(recording.calls), ended[-1][1] | {counter}))
        outbox.done(1)
        ended.append((len(recording.calls), {2, 3}))
    for made, place in cuts(recording):
        done = max(index for index, (end, _) in enumerate(ended) if end <= made)
        allowed = [counters for _, counters in ended[done : done + 2]]
        waiting = DiskOutbox(place).waiting()
        assert {counter for counter, _ in waiting} in allowed
        assert all(reports[counter] == envelope for counter, envelope in waiting)


def test_every_power_cut_leaves_an_accepted_document_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path / "device")
    recording.root.mkdir()
    documents = [b"first" * 100, b"second" * 200, b"third" * 50]
    with monkeypatch.context() as patch:
        recording.start(patch)
        spool = DocumentSpool(recording.root / "spool")
        for document in documents:
            spool.put(topics.MANIFEST, document)
            spool.accept(topics.MANIFEST)
    found = {DocumentSpool(place / "spool").accepted(topics.MANIFEST) for _, place in cuts(recording)}
    assert found == {None, *documents}


@pytest.mark.parametrize("careless", ["the file", "the directory"])
def test_the_cuts_would_find_a_journal_that_does_not_sync(
    careless: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checker checked: without one of its two fsyncs a save that has returned can be lost or torn."""
    recording = Recording(tmp_path / "device")
    recording.root.mkdir()
    with monkeypatch.context() as patch:
        recording.start(patch)
        if careless == "the file":
            patch.setattr(os, "fsync", _only_directories(os.fsync))
        else:
            patch.setattr(files, "fsync_dir", lambda path: None)
        journal = TinyJournal(recording.root)
        for record in _records()[:2]:
            journal.save(record)
    wrong = 0
    for made, place in cuts(recording):
        if made == len(recording.calls):
            try:
                wrong += TinyJournal(place).load() != _records()[1]
            except ProtocolError:
                wrong += 1
    assert wrong


def _only_directories(real: Callable[[int], None]) -> Callable[[int], None]:
    return lambda descriptor: real(descriptor) if stat.S_ISDIR(os.fstat(descriptor).st_mode) else None
