"""Downloads one artifact into the cache, from whichever source gives the signed bytes.

1. Never more than the signed length is read, whatever a header says.
2. What arrives is hashed while it is written; memory does not grow with the artifact.
3. An interrupted download goes on where it stopped, from any source; if the whole is then wrong, it is
   loaded once more from its start before the source is blamed.
4. A source that fails is not the artifact's failure: the next one is tried.
5. On a failure that trying again can not mend, the space is given back.
"""

import os
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from device_agent import AGENT_VERSION
from device_agent.adapters.files import make_dir
from device_agent.adapters.foreign_folder import remove_entry
from device_agent.core.plan import PlannedTarget
from device_agent.installers.addresses import AddressPolicy, Url
from device_agent.installers.cache import MIRRORS, artifact_path
from device_agent.installers.hashing import hash_lane
from device_agent.installers.http_source import Response, get
from device_agent.installers.mirrors import Mirrors
from device_agent.installers.pace import Pace
from device_agent.installers.part_file import PartFile
from device_agent.installers.verified_file import open_verified
from device_agent.settings import DownloadSettings
from fleet_protocol.errors import FleetError, InstallError, ProtocolError, TransportError
from fleet_protocol.ids import shown

Progress = Callable[[int], None]
"""Gets the bytes of the artifact that are there."""
_PAGES: Final = ("text/html", "application/xhtml+xml")
_RANGE: Final = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")
_SPARE_BYTES: Final = 1024 * 1024
"""Room for what else the agent must be able to write."""


class _StartOverError(Exception):
    """The source can not continue what is there."""


class Downloader:
    """Fills one cache directory under one set of bounds."""

    def __init__(self, cache: Path, settings: DownloadSettings, progress: Progress) -> None:
        self._cache, self._settings, self._progress = cache, settings, progress
        self._policy = AddressPolicy(settings.allowed_hosts)

    def fetch(self, target: PlannedTarget) -> Path:
        """The artifact is in the cache: whole, verified, synced. Once there, no source is asked again.

        Raises ProtocolError `digest` or `url` where every source is to blame, TransportError where trying again
        later may help, InstallError `no-space`; OSError from the disk.
        """
        whole = artifact_path(self._cache, target.sha256)
        make_dir(self._cache)
        if self._have(whole, target):
            self._progress(target.length)
            return whole
        with hash_lane() as lane, closing(PartFile(self._cache, target.sha256, target.length, lane)) as part:
            try:
                self._check_space(part)
                self._from_any(target, part)
            except TransportError:
                raise
            except (FleetError, OSError):
                part.discard()
                raise
        return whole

    def _have(self, whole: Path, target: PlannedTarget) -> bool:
        if not os.path.lexists(whole):
            return False
        try:
            with hash_lane() as lane, open_verified(whole, target.length, target.sha256, lane) as source:
                source.finish()
        except (ProtocolError, InstallError):
            remove_entry(whole)
            return False
        return True

    def _check_space(self, part: PartFile) -> None:
        disk = os.statvfs(self._cache)
        free = disk.f_bavail * disk.f_frsize
        if free < part.left + _SPARE_BYTES:
            raise InstallError("no-space", f"{part.left} bytes to download, {free} free")

    def _from_any(self, target: PlannedTarget, part: PartFile) -> None:
        if part.is_right():  # a kill between the last block and the rename
            part.finish()
            return
        urls, errors = self._sources(target)
        mirrors = Mirrors(self._cache / MIRRORS)
        for url in mirrors.order(urls):
            try:
                self._from(url, part)
            except (TransportError, ProtocolError) as error:
                mirrors.failed(url)
                errors.append(error)
                continue
            mirrors.worked(url)
            return
        raise _worst(errors)

    def _sources(self, target: PlannedTarget) -> tuple[list[Url], list[FleetError]]:
        urls: list[Url] = []
        errors: list[FleetError] = []
        for text in target.urls:
            try:
                urls.append(self._policy.check(text))
            except ProtocolError as error:
                errors.append(error)
        return urls, errors

    def _from(self, url: Url, part: PartFile) -> None:
        """The whole artifact with this source's help (rule 3)."""
        continued = part.size > 0
        try:
            self._transfer(url, part)
        except _StartOverError:
            part.restart()
        if not part.is_right() and continued:
            part.restart()
            self._transfer(url, part)
        if not part.is_right():
            part.restart()
            raise ProtocolError("digest", f"{url.origin} gives other bytes than the signed ones")
        part.finish()

    def _transfer(self, url: Url, part: PartFile) -> None:
        if not part.left:
            return
        settings = self._settings
        pace = Pace(settings.rate_bytes_s, settings.min_rate_bytes_s, settings.deadline_s)
        with get(url, self._policy, _headers(url, part), pace.idle_s) as response:
            _agree(response, url, part)
            part.keep_tag(url.text, response.header("ETag"))
            while part.left and (data := response.read(min(pace.block_bytes, part.left))):
                part.write(data)
                self._progress(part.size)
                pace.took(len(data))
            _check_end(response, url, part)


def _headers(url: Url, part: PartFile) -> dict[str, str]:
    headers = {"User-Agent": f"fairlead-agent/{AGENT_VERSION}", "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        tag = part.tag(url.text)
        if tag is not None:
            headers["If-Range"] = tag
    return headers


def _agree(response: Response, url: Url, part: PartFile) -> None:
    """Check that the response goes on where the part ends; one that gives the whole file empties the part."""
    if response.status == 200:
        if part.size:
            part.restart()
    elif not part.size:
        raise TransportError("refused", f"{url.origin} answers {response.status} to a request for the whole")
    elif response.status != 206 or not _continues(response.header("Content-Range") or "", part):
        raise _StartOverError
    length = response.header("Content-Length")
    if length is not None and length != str(part.left):
        raise _other_length(response, url, shown(length))


def _continues(text: str, part: PartFile) -> bool:
    found = _RANGE.fullmatch(text)
    end = part.size + part.left
    if found is None or found[3] not in ("*", str(end)):
        return False
    return (int(found[1]), int(found[2])) == (part.size, end - 1)


def _check_end(response: Response, url: Url, part: PartFile) -> None:
    """The body ends with the signed length, where only its end can say how long it is."""
    if response.header("Content-Length") is not None:
        if part.left:
            raise TransportError("truncated", f"{url.origin} ended {part.left} bytes early")
        return
    if part.left and response.header("Transfer-Encoding") is None:
        raise TransportError("truncated", f"{url.origin} ended {part.left} bytes early")
    if part.left or response.read(1):
        raise _other_length(response, url, "fewer" if part.left else "more")


def _other_length(response: Response, url: Url, length: str) -> FleetError:
    """A page instead of a file is a captive portal or a mistake; a file of another length is not the signed one."""
    kind = (response.header("Content-Type") or "").partition(";")[0].strip().lower()
    if kind in _PAGES:
        return TransportError("refused", f"{url.origin} answers with a web page")
    return ProtocolError("digest", f"{url.origin} offers {length} bytes, which is not the signed length")


def _worst(errors: list[FleetError]) -> FleetError:
    """What to say of all sources together: as long as one may still work, the release is not refused."""
    transport = [error for error in errors if isinstance(error, TransportError)]
    busy = [error for error in transport if error.retry_after_s is not None]
    if busy:
        return min(busy, key=lambda error: error.retry_after_s or 0.0)
    if transport:
        return transport[0]
    if errors:
        return min(errors, key=lambda error: error.code != "digest")
    return TransportError("unreachable", "the manifest names no source for the artifact")
