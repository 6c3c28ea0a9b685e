"""A TUF repository in a directory, for the unmodified `tuf.ngclient.Updater`."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from firmware_tools import keys, online
from firmware_tools.fleet import Fleet


class DirectoryFetcher(FetcherInterface):
    """Serves `file:///metadata/...` from a directory; a missing file is a 404."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._directory / urlsplit(url).path.lstrip("/")
        if not path.is_file():
            raise DownloadHTTPError("absent", 404)
        return iter([path.read_bytes()])


def publish_online(fleet: Fleet, *, version: int, now_s: float) -> None:
    """Sign snapshot and timestamp as the server would, with the keys that the newest root lists."""
    targets = fleet.targets_bytes()
    assert targets is not None
    root = fleet.root()
    signers = {keys.load(path).public_key.keyid: keys.load(path) for path in fleet.online.glob("*.pem")}
    (snapshot_key,) = root.roles["snapshot"].keys
    (timestamp_key,) = root.roles["timestamp"].keys
    snapshot = online.make_snapshot(targets, signers[snapshot_key], version=version, now_s=now_s)
    timestamp = online.make_timestamp(snapshot, signers[timestamp_key], version=version, now_s=now_s)
    (fleet.metadata / f"{version}.snapshot.json").write_bytes(snapshot)
    (fleet.metadata / "timestamp.json").write_bytes(timestamp)


def updater(fleet: Fleet, state: Path) -> Updater:
    """A stock client that trusts the fleet's first root and keeps its metadata in `state`."""
    state.mkdir(parents=True, exist_ok=True)
    first = (fleet.metadata / "1.root.json").read_bytes()
    return Updater(
        metadata_dir=str(state),
        metadata_base_url="file:///metadata/",
        fetcher=DirectoryFetcher(fleet.directory),
        bootstrap=first,
    )
