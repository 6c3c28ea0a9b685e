"""A cache directory, one artifact, and what downloading it into there does."""

import hashlib
import json
from pathlib import Path

from device_agent.installers.download import Downloader
from device_agent.settings import DownloadSettings
from tests.fakes.artifacts import planned_target, raw

DATA = hashlib.shake_128(b"artifact").digest(300_000)
OTHER = hashlib.shake_128(b"other").digest(300_000)
ARTIFACT = raw(DATA)
LOCAL = DownloadSettings(allowed_hosts=("127.0.0.1", "localhost"))


class Cache:
    """A cache directory and what a download does with it."""

    def __init__(self, path: Path, settings: DownloadSettings = LOCAL) -> None:
        self.path, self.settings = path, settings
        self.progress: list[int] = []
        path.mkdir(exist_ok=True)

    def fetch(self, *urls: str) -> Path:
        return Downloader(self.path, self.settings, self.progress.append).fetch(planned_target(ARTIFACT, urls=urls))

    def put_part(self, data: bytes, url: str | None = None, etag: str = '"1"') -> None:
        (self.path / f"{ARTIFACT.sha256}.part").write_bytes(data)
        if url is not None:
            (self.path / f"{ARTIFACT.sha256}.etag").write_text(json.dumps({"url": url, "etag": etag}))

    @property
    def names(self) -> list[str]:
        return sorted(path.name.replace(ARTIFACT.sha256, "X") for path in self.path.iterdir())
