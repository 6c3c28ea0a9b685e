"""The wall clock is never before what a verified document told."""

import os
import time
from pathlib import Path

from device_agent.adapters.trusted_clock import TrustedClock
from device_agent.trust.floors import Floors, encode


def test_the_later_of_clock_and_floor(tmp_path: Path) -> None:
    clock = TrustedClock(tmp_path)
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
