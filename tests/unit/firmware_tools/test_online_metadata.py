"""Snapshot and timestamp bind exactly what they were made of, and a stock client accepts them."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Snapshot, Timestamp

from firmware_tools import catalogue, ceremony, description, keys, online, signing
from firmware_tools.metadata import entry, read
from fleet_protocol.errors import ProtocolError
from tests.fakes.tuf_directory import publish_online, updater

NOW_S = 1_800_000_000.0


def test_a_stock_client_finds_the_signed_release(tmp_path: Path, make_artifact: Callable[..., Path]) -> None:
    now_s = time.time()
    fleet = ceremony.init(tmp_path / "f", fleet="acme", now_s=now_s)
    artifact = make_artifact()
    catalogue.add(fleet, artifact, now_s=now_s)
    signing.sign(fleet, [fleet.offline / "targets-1.pem", fleet.offline / "targets-2.pem"], now_s=now_s)
    publish_online(fleet, version=1, now_s=now_s)
    client = updater(fleet, tmp_path / "client")
    client.refresh()
    found = description.read(artifact)
    info = client.get_targetinfo(found.path)
    assert info is not None
    assert (info.length, info.hashes) == (found.length, {"sha256": found.sha256})
    targets = fleet.targets()
    assert targets is not None
    assert entry(targets.signed, found.path)[0] == found.custom


def test_numbers_and_digests_are_bound(fleet: ceremony.Fleet) -> None:
    targets = fleet.targets_bytes()
    assert targets is not None
    snapshot = online.make_snapshot(targets, keys.load(fleet.online / "snapshot.pem"), version=7, now_s=NOW_S, days=2)
    timestamp = online.make_timestamp(snapshot, keys.load(fleet.online / "timestamp.pem"), version=9, now_s=NOW_S)
    bound = read(Snapshot, snapshot).signed
    assert bound.version == 7
    assert bound.expires.timestamp() == NOW_S + 2 * 86_400
    assert list(bound.meta) == ["targets.json"]
    bound.meta["targets.json"].verify_length_and_hashes(targets)
    meta = read(Timestamp, timestamp).signed.snapshot_meta
    assert meta.version == 7
    meta.verify_length_and_hashes(snapshot)


def test_another_key_is_no_use(tmp_path: Path) -> None:
    now_s = time.time()
    fleet = ceremony.init(tmp_path / "f", fleet="acme", now_s=now_s)
    publish_online(fleet, version=1, now_s=now_s)
    snapshot = (fleet.metadata / "1.snapshot.json").read_bytes()
    forged = online.make_timestamp(snapshot, keys.load(fleet.online / "snapshot.pem"), version=2, now_s=now_s)
    (fleet.metadata / "timestamp.json").write_bytes(forged)
    with pytest.raises(RepositoryError):
        updater(fleet, tmp_path / "client").refresh()


@pytest.mark.parametrize("data", [b"", b"{}", b'{"signed":{"_type":"snapshot","version":1}}'])
def test_other_bytes_are_refused(fleet: ceremony.Fleet, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        online.make_snapshot(data, keys.load(fleet.online / "snapshot.pem"), version=1, now_s=NOW_S)
