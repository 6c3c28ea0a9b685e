"""The log's file: bounded, and the newest lines are always there."""

import io
import os
from pathlib import Path

import pytest

from device_agent.log import Log
from device_agent.log_file import LogFile


def _written(path: Path, lines: int, *, size_bytes: int = 200, files: int = 3) -> None:
    log = LogFile(path, size_bytes=size_bytes, files=files)
    for number in range(lines):
        log.write(f"line {number:05}\n")
    log.flush()
    log.close()


@pytest.mark.parametrize("files", [1, 2, 3])
def test_it_never_grows_beyond_its_bound_and_keeps_the_newest(tmp_path: Path, files: int) -> None:
    _written(tmp_path / "new/agent.log", 1_000, files=files)
    found = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in found] == ["agent.log", "agent.log.1", "agent.log.2"][:files]
    assert all(path.stat().st_size <= 200 for path in found)
    kept = "".join(path.read_text() for path in reversed(found))
    last = [f"line {number:05}" for number in range(1_000)][-len(kept.splitlines()) :]
    assert kept.splitlines() == last


def test_it_goes_on_where_the_last_run_ended(tmp_path: Path) -> None:
    _written(tmp_path / "agent.log", 3)
    _written(tmp_path / "agent.log", 3)
    assert len((tmp_path / "agent.log").read_text().splitlines()) == 6
    assert (tmp_path / "agent.log").stat().st_mode & 0o777 == 0o640


def test_a_line_longer_than_the_bound_is_written_whole(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "agent.log", size_bytes=10, files=2)
    log.write("a long first line\n")
    log.write("another long line\n")
    log.close()
    assert (tmp_path / "agent.log").read_text() == "another long line\n"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "agent.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        LogFile(tmp_path / "agent.log", size_bytes=10, files=2)
    assert not (tmp_path / "elsewhere").exists()


def test_below_its_level_nothing_is_written() -> None:
    stream = io.StringIO()
    log = Log(stream, level="warning")
    log.info("a", "no")
    log.warning("b", "yes")
    log.error("c", "yes")
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["WARNING", "ERROR"]


def test_the_journal_gets_priorities_and_no_time_of_ours(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """sd-daemon(3): `<3>` in front of a line is an error."""
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    with os.fdopen(os.dup(2), "w") as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        log = Log()
        log.error("io", "a disk")
        log.info("stage", "idle")
    assert capfd.readouterr().err.splitlines() == ["<3>ERROR io: a disk", "<6>INFO stage: idle"]
