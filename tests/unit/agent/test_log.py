"""The log: one line per event, never a flood."""

import io

import pytest

from device_agent.log import BURST, WINDOW_S, Log


class _Time:
    now_s = 0.0


def _log() -> tuple[Log, io.StringIO, _Time]:
    stream, time = io.StringIO(), _Time()
    return Log(stream, mono_s=lambda: time.now_s, wall_s=lambda: 1_763_900_000.0), stream, time


def test_a_line() -> None:
    sink, stream, _ = _log()
    sink.warning("signature", "refused")
    assert stream.getvalue() == "2025-11-23T12:13:20Z WARNING signature: refused\n"


def test_a_burst_is_counted_and_other_codes_go_on() -> None:
    sink, stream, time = _log()
    for _ in range(1_000):
        sink.warning("signature", "refused")
    sink.info("link", "up")
    assert len(stream.getvalue().splitlines()) == BURST + 1
    time.now_s = WINDOW_S
    sink.flush()
    assert stream.getvalue().splitlines()[-1].endswith(f"signature: {1_000 - BURST} more in a minute")
    sink.warning("signature", "refused")
    assert stream.getvalue().splitlines()[-1].endswith("refused")


def test_one_line_whatever_a_peer_says() -> None:
    sink, stream, _ = _log()
    sink.warning("parse", "evil\n2025 ERROR forged: line\x1b[2J" + "x" * 10_000)
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue()) < 500


def test_a_closed_stream_is_no_error() -> None:
    sink, stream, time = _log()
    stream.close()
    for _ in range(BURST + 1):
        sink.error("x", "y")
    time.now_s = WINDOW_S
    sink.flush()
    with pytest.raises(ValueError, match="closed"):
        stream.getvalue()
