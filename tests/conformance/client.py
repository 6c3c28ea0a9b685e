#!/usr/bin/env python3
"""The client-under-test of the TUF project's conformance suite, on the agent's own trust path.

This process is what the agent's worker is: fetcher, screening, the stock TUF client, trust store, and the agent's own
downloader. What the resident is stands in `broker_side.py`: a mosquitto on loopback, the agent's link and its retained
reader. Run as `docs/security.md` says; see `CLIENT-CLI.md` of the suite for the commands.
"""

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from tuf.api.metadata import TargetFile

from device_agent.core.plan import PlannedTarget
from device_agent.installers.download import Downloader
from device_agent.settings import DownloadSettings
from device_agent.trust.metadata import VerifiedCatalogue, refreshed
from device_agent.trust.store import TrustStore, initialise
from fleet_protocol import limits
from fleet_protocol.errors import FleetError, TransportError
from fleet_protocol.install import Install
from fleet_protocol.screening import check_roles, screen
from fleet_protocol.topics import Topics

TOPICS = Topics()
WAIT_S = 20.0
PROJECT = Path(__file__).resolve().parents[2]


class Resident:
    """Asks the broker's side for retained documents, as the worker asks the resident."""

    def __init__(self, repository: str) -> None:
        command = [sys.executable, "-m", "tests.conformance.broker_side", repository]
        clear = {name: value for name, value in os.environ.items() if not name.startswith(("LD_PRELOAD", "FAKETIME"))}
        self._process = subprocess.Popen(
            command, cwd=PROJECT, env=clear, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def want(self, topic: str) -> bytes | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(topic + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise TransportError("unreachable", "the broker's side ended")
        answer = json.loads(line)
        if "code" in answer:
            raise TransportError(answer["code"], answer["detail"])
        return None if answer["payload"] is None else base64.b64decode(answer["payload"])

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def resident(repository: str) -> Iterator[Resident]:
    running = Resident(repository)
    try:
        yield running
    finally:
        running.close()


class Client:
    """The three commands. The agent's state lives beside the files that the suite looks at."""

    def __init__(self, metadata_dir: Path) -> None:
        self._shown = metadata_dir
        self._state = metadata_dir / "agent"

    def init(self, root: Path) -> None:
        initialise(self._state, root.read_bytes())
        self._show()

    def refresh(self, repository: str) -> None:
        with self._catalogue(repository):
            pass

    def download(self, repository: str, names: list[str], base: str, directory: Path) -> None:
        with self._catalogue(repository) as catalogue:
            for name in names:
                file = catalogue.file(name)
                if file is None:
                    raise SystemExit(f"{name} is not in the repository")
                self._load(name, file, base.rstrip("/"), directory / quote(name, ""))

    @contextmanager
    def _catalogue(self, repository: str) -> Iterator[VerifiedCatalogue]:
        try:
            with (
                TrustStore.opened(self._state) as store,
                resident(repository) as documents,
                refreshed(store, documents.want, TOPICS, judge=judge, now_s=time.time()) as catalogue,
            ):
                yield catalogue
        finally:
            self._show()

    def _load(self, name: str, file: TargetFile, base: str, place: Path) -> None:
        folder, slash, last = name.rpartition("/")
        algorithm, digest = next(iter(file.hashes.items()))
        url = f"{base}/{folder}{slash}{digest}.{last}"
        if algorithm != "sha256":
            self._load_by_tuf(url, file, place)
            return
        target = PlannedTarget(
            path="artifact",
            length=file.length,
            sha256=digest,
            kind="files",
            format="raw",
            unpacked_size=file.length,
            unpacked_files=1,
            install=Install(exec=(), stop_s=1, check=None),
            urls=(url,),
        )
        settings = DownloadSettings(allowed_hosts=(urlsplit(base).hostname or "",))
        whole = Downloader(self._state / "cache", settings, lambda _: None).fetch(target)
        if not place.exists() or place.read_bytes() != whole.read_bytes():
            shutil.copyfile(whole, place)

    @staticmethod
    def _load_by_tuf(url: str, file: TargetFile, place: Path) -> None:
        """Fairlead's catalogue always has sha256; the suite also asks for others, which the `tuf` library checks."""
        if place.exists():
            with place.open("rb") as present:
                file.verify_length_and_hashes(present)
            return
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            data = answer.read(file.length + 1)
        file.verify_length_and_hashes(data)
        place.write_bytes(data)

    def _show(self) -> None:
        """Copy what the agent trusts to where the suite expects it."""
        try:
            with TrustStore.opened(self._state) as store:
                files = {name: store.read(name) or b"" for name in store.floors.files}
        except FleetError:
            return
        for stale in self._shown.glob("*.json"):
            stale.unlink()
        for name, data in files.items():
            (self._shown / name).write_bytes(data)


def judge(root: bytes) -> None:
    """The agent's rules for a newest root, without `x-fleet`, which the suite's repositories do not have."""
    check_roles(screen(root, "root", max_size=limits.ROOT_SIZE))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append")
    parser.add_argument("--target-base-url")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    asked = parser.parse_args()
    client = Client(asked.metadata_dir)
    try:
        if asked.command == "init":
            client.init(asked.trusted_root)
        elif asked.command == "refresh":
            client.refresh(asked.metadata_url)
        else:
            client.download(asked.metadata_url, asked.target_name, asked.target_base_url, asked.target_dir)
    except FleetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
