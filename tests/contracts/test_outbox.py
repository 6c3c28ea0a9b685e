"""The contract of the Outbox port, on the real adapter and on the fake; and what only a disk can do."""

import base64
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.adapters.outbox import MOST, DiskOutbox
from device_agent.ports import Outbox
from fleet_protocol import strict_json
from fleet_protocol.errors import InstallError
from tests.fakes.device_outbox import MemoryOutbox

Reopen = Callable[[], Outbox]


@pytest.fixture(params=["disk", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Gives the outbox of one device, as a new process would find it."""
    memory = MemoryOutbox()
    return (lambda: memory) if request.param == "memory" else lambda: DiskOutbox(tmp_path)


def _envelope(counter: int, outcome: str | None = None) -> bytes:
    attempt: dict[str, Any] | None = None if counter % 3 == 0 else {"outcome": outcome}
    if outcome is not None:
        attempt = {"outcome": outcome}
    payload = strict_json.dumps({"_type": "fairlead.report", "counter": counter, "attempt": attempt})
    return strict_json.dumps({"payload": base64.b64encode(payload).decode(), "payloadType": "x", "signatures": []})


def _counters(outbox: Outbox) -> list[int]:
    return [counter for counter, _ in outbox.waiting()]


def test_an_empty_outbox_waits_for_nothing(reopen: Reopen) -> None:
    assert reopen().waiting() == []


def test_reports_wait_in_the_order_of_their_counters(reopen: Reopen) -> None:
    outbox = reopen()
    for counter in (9, 10, 2, 100):
        outbox.put(counter, _envelope(counter))
    assert reopen().waiting() == [(counter, _envelope(counter)) for counter in (2, 9, 10, 100)]


def test_twice_is_once(reopen: Reopen) -> None:
    outbox = reopen()
    outbox.put(1, _envelope(1))
    outbox.put(1, _envelope(1, "committed"))
    assert reopen().waiting() == [(1, _envelope(1))]


def test_what_the_broker_has_is_gone(reopen: Reopen) -> None:
    outbox = reopen()
    for counter in (1, 2, 3):
        outbox.put(counter, _envelope(counter))
    outbox.done(2)
    outbox.done(2)
    outbox.done(77)
    assert _counters(outbox) == _counters(reopen()) == [1, 3]


def test_at_the_bound_the_oldest_without_an_outcome_goes_first(reopen: Reopen) -> None:
    outbox = reopen()
    for counter in range(1, MOST + 1):
        outbox.put(counter, _envelope(counter, "committed" if counter in (1, 3) else None))
    outbox = reopen()
    outbox.put(MOST + 1, _envelope(MOST + 1))
    outbox.put(MOST + 2, _envelope(MOST + 2))
    assert _counters(outbox) == [1, 3, *range(5, MOST + 3)]


def test_at_the_bound_of_outcomes_the_oldest_goes(reopen: Reopen) -> None:
    outbox = reopen()
    for counter in range(1, MOST + 2):
        outbox.put(counter, _envelope(counter, "failed"))
    assert _counters(outbox) == list(range(2, MOST + 2))


def test_an_envelope_that_tells_nothing_goes_before_one_that_does(reopen: Reopen) -> None:
    outbox = reopen()
    for counter in range(1, MOST):
        outbox.put(counter, _envelope(counter, "failed"))
    outbox.put(MOST, b"not an envelope")
    outbox.put(MOST + 1, _envelope(MOST + 1, "failed"))
    assert MOST not in _counters(outbox)


def test_what_is_not_a_report_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    for name in ("notes.txt", "7.json.new", "0.json", "-1.json", "007.json"):
        (tmp_path / "outbox" / name).write_bytes(b"x")
    outbox = DiskOutbox(tmp_path)
    assert outbox.waiting() == []
    outbox.put(7, _envelope(7))
    assert _counters(DiskOutbox(tmp_path)) == [7]


def test_a_report_that_the_disk_will_not_give_back_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    outbox = DiskOutbox(tmp_path)
    for counter in (1, 2, 3):
        outbox.put(counter, _envelope(counter))
    (tmp_path / "outbox" / "2.json").unlink()
    (tmp_path / "outbox" / "2.json").mkdir()
    assert _counters(outbox) == _counters(DiskOutbox(tmp_path)) == [1, 3]


def test_a_full_disk_is_told_and_the_report_can_be_put_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = DiskOutbox(tmp_path)

    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(InstallError) as failure:
            outbox.put(1, _envelope(1))
    assert (failure.value.code, outbox.waiting()) == ("no-space", [])
    outbox.put(1, _envelope(1))
    assert _counters(DiskOutbox(tmp_path)) == [1]


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    DiskOutbox(tmp_path).put(1, _envelope(1))
    assert (tmp_path / "outbox" / "1.json").stat().st_mode & 0o077 == 0
