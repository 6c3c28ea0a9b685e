"""The wall clock is never before what a verified document told."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.adapters.trusted_clock import TrustedClock
from device_agent.trust.floors import Floors, encode


class StoppableClock(TrustedClock):
    """Its monotonic time passes when it is told to."""

    now_s = 1_000.0

    def mono_s(self) -> float:
        return self.now_s


def test_the_later_of_clock_and_floor(tmp_path: Path) -> None:
    clock = StoppableClock(tmp_path)
    assert abs(clock.wall_s() - time.time()) < 5
    path = tmp_path / "trust" / "floors.json"
    path.parent.mkdir()
    ahead = int(time.time()) + 1_000_000
    path.write_bytes(encode(Floors(anchor="0" * 64, time_s=ahead)))
    assert clock.wall_s() == ahead
    path.write_bytes(encode(Floors(anchor="0" * 64, time_s=5)))
    os.utime(path, ns=(1, 1))
    assert abs(clock.wall_s() - time.time()) < 5
    path.write_bytes(encode(Floors(anchor="0" * 64, time_s=ahead)))
    os.utime(path, ns=(2, 2))
    assert clock.moment().wall_s == ahead
    path.write_text("torn")
    assert clock.wall_s() == ahead
    path.unlink()
    assert clock.wall_s() == ahead


def test_time_goes_on_where_nobody_sets_the_clock(tmp_path: Path) -> None:
    """A floor far ahead is what a clock in 1970 looks like. Each new time that is told is a new start."""
    clock, ahead = StoppableClock(tmp_path), int(time.time()) + 1_000_000
    path = tmp_path / "trust" / "floors.json"
    path.parent.mkdir()
    for mtime, (told_s, passes_s, wall_s) in enumerate(
        [
            (ahead, 0.0, ahead),
            (ahead, 90.5, ahead + 90.5),
            (ahead, 10.0, ahead + 100.5),
            (ahead + 60, 1.0, ahead + 61),
            (ahead - 50, 0.0, ahead - 50),
            (253_402_300_799, 5.0, 253_402_300_799),
        ]
    ):
        path.write_bytes(encode(Floors(anchor="0" * 64, time_s=told_s)))
        os.utime(path, ns=(mtime, mtime))
        clock.wall_s()
        clock.now_s += passes_s
        assert clock.wall_s() == wall_s


def _linked(path: Path) -> None:
    path.with_name("elsewhere").write_bytes(encode(Floors(anchor="0" * 64, time_s=2**32)))
    path.symlink_to("elsewhere")


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a directory": Path.mkdir,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a good one": _linked,
    "too deep": lambda path: path.write_bytes(b"[" * 100_000),
    "too large": lambda path: path.write_bytes(encode(Floors(anchor="0" * 64, time_s=2**32)) + b" " * 2_000_000),
    "no object": lambda path: path.write_bytes(b'["floors"]'),
    "a text": lambda path: path.write_bytes(b'{"floors": "time"}'),
    "no time": lambda path: path.write_bytes(b'{"floors": {"time": {"time_s": true}}}'),
    "no number": lambda path: path.write_bytes(b'{"floors": {"time": {"time_s": NaN}}}'),
    "infinite": lambda path: path.write_bytes(b'{"floors": {"time": {"time_s": 1e999}}}'),
    "before time": lambda path: path.write_bytes(b'{"floors": {"time": {"time_s": -1}}}'),
    "after all dates": lambda path: path.write_bytes(b'{"floors": {"time": {"time_s": 253402300800}}}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_floor_file_that_somebody_else_made(tmp_path: Path, name: str) -> None:
    """The resident neither waits, nor dies, nor believes; it would say the time in every message."""
    (tmp_path / "trust").mkdir()
    HOSTILE[name](tmp_path / "trust" / "floors.json")
    clock = TrustedClock(tmp_path)
    for _ in range(2):
        assert abs(clock.wall_s() - time.time()) < 60
