"""One agent for one state directory, and the spool in it."""

import os
from pathlib import Path

import pytest

from device_agent.adapters.spool import DocumentSpool
from device_agent.adapters.state_lock import state_lock
from fleet_protocol import topics
from fleet_protocol.errors import PolicyError


def test_a_second_agent_is_told_who_holds_it(tmp_path: Path) -> None:
    with state_lock(tmp_path / "state"):
        with (
            pytest.raises(PolicyError, match=rf"an agent already runs on .* \(process {os.getpid()}\)"),
            state_lock(tmp_path / "state"),
        ):
            raise AssertionError
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    with state_lock(tmp_path / "state"):
        pass


def test_a_directory_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicyError, match="can not be used"), state_lock(tmp_path / "file" / "state"):
        raise AssertionError


def test_the_spool(tmp_path: Path) -> None:
    spool = DocumentSpool(tmp_path / "spool")
    assert spool.accepted(topics.MANIFEST) is None
    assert spool.accepted_path(topics.MANIFEST) is None
    path = spool.put(topics.MANIFEST, b"one")
    assert path.read_bytes() == b"one"
    spool.accept(topics.MANIFEST)
    spool.put(topics.MANIFEST, b"two")
    assert spool.accepted(topics.MANIFEST) == b"one"
    spool.refuse(topics.MANIFEST)
    spool.refuse(topics.MANIFEST)
    accepted = spool.accepted_path(topics.MANIFEST)
    assert accepted is not None
    assert accepted.read_bytes() == b"one"
    spool.forget(topics.MANIFEST)
    assert spool.accepted(topics.MANIFEST) is None
