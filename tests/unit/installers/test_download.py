"""The downloader by the rules of device_agent/installers/download.py, against a real HTTP server."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from device_agent.installers.download import Downloader
from device_agent.settings import DownloadSettings
from fleet_protocol.errors import InstallError, ProtocolError, TransportError
from tests.fakes.artifacts import planned_target, raw
from tests.fakes.download_cache import ARTIFACT, DATA, LOCAL, OTHER, Cache
from tests.fakes.http_server import FileServer, Served, file_server


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_it_comes_whole_and_once(server: FileServer, cache: Cache) -> None:
    url = server.serve(DATA)
    assert cache.fetch(url).read_bytes() == DATA
    assert cache.names == ["X"]
    assert cache.fetch(url).read_bytes() == DATA
    assert len(server.requests) == 1
    assert cache.progress[-1] == len(DATA)
    assert server.requests[0][1]["accept-encoding"] == "identity"
    assert server.requests[0][1]["host"] == f"127.0.0.1:{server.port}"


def test_a_cached_file_that_changed_is_fetched_again(server: FileServer, cache: Cache) -> None:
    """Attack B9."""
    (cache.path / ARTIFACT.sha256).write_bytes(OTHER)
    assert cache.fetch(server.serve(DATA)).read_bytes() == DATA


def test_an_empty_artifact_needs_no_source(tmp_path: Path) -> None:
    target = planned_target(raw(b""))
    assert Downloader(tmp_path / "c", LOCAL, lambda _: None).fetch(target).read_bytes() == b""


def test_a_cut_transfer_goes_on_where_it_stopped(server: FileServer, cache: Cache) -> None:
    """Rule 3."""
    url = server.serve(DATA, cut_after=123_456)
    with pytest.raises(TransportError) as caught:
        cache.fetch(url)
    assert caught.value.code == "truncated"
    assert cache.names == ["X.etag", "X.part", "mirrors.json"]
    assert cache.fetch(url).read_bytes() == DATA
    assert server.ranges == [None, "bytes=123456-"]
    assert server.requests[1][1]["if-range"] == '"1"'
    assert cache.names == ["X", "mirrors.json"]


def test_it_goes_on_from_another_mirror(server: FileServer, cache: Cache) -> None:
    first, second = server.serve(DATA, cut_after=100_000), server.serve(DATA, "/second", etag='"2"')
    assert cache.fetch(first, second).read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-"]
    assert "if-range" not in server.requests[1][1]


def test_a_file_that_changed_on_the_server_starts_over(server: FileServer, cache: Cache) -> None:
    """Attack B3: If-Range notices it."""
    url = server.serve(DATA, etag='"new"')
    cache.put_part(OTHER[:50_000], url, '"old"')
    assert cache.fetch(url).read_bytes() == DATA
    assert len(server.requests) == 1


def test_a_part_of_another_file_starts_over_once(server: FileServer, cache: Cache) -> None:
    """Attack B3, rule 3: the digest notices what the tag did not."""
    url = server.serve(DATA)
    cache.put_part(OTHER[:50_000], url)
    assert cache.fetch(url).read_bytes() == DATA
    assert server.ranges == ["bytes=50000-", None]


@pytest.mark.parametrize("part", [OTHER, OTHER + b"more", DATA + b"more"])
def test_a_whole_wrong_part_starts_over(server: FileServer, cache: Cache, part: bytes) -> None:
    cache.put_part(part)
    assert cache.fetch(server.serve(DATA)).read_bytes() == DATA


def test_a_whole_right_part_needs_no_source(cache: Cache) -> None:
    cache.put_part(DATA)
    assert cache.fetch().read_bytes() == DATA


@pytest.mark.parametrize("tag", ["not json", '{"url": 7, "etag": 7}', "[]", '{"url": "u", "etag": null}'])
def test_a_torn_tag_is_no_tag(server: FileServer, cache: Cache, tag: str) -> None:
    cache.put_part(DATA[:1_000])
    (cache.path / f"{ARTIFACT.sha256}.etag").write_text(tag)
    assert cache.fetch(server.serve(DATA)).read_bytes() == DATA
    assert "if-range" not in server.requests[0][1]


def test_a_weak_tag_is_not_relied_on(server: FileServer, cache: Cache) -> None:
    url = server.serve(DATA, etag='W/"1"', cut_after=1_000)
    with pytest.raises(TransportError):
        cache.fetch(url)
    assert cache.fetch(url).read_bytes() == DATA
    assert "if-range" not in server.requests[1][1]


def test_a_server_without_ranges_starts_over(server: FileServer, cache: Cache) -> None:
    cache.put_part(DATA[:1_000])
    assert cache.fetch(server.serve(DATA, ranges=False)).read_bytes() == DATA


@pytest.mark.parametrize(
    "span",
    ["bytes 0-299999/300000", "bytes 1000-2000/300000", "bytes 1000-299999/400000", "items 1-2/3", "", "bytes */3"],
)
def test_a_wrong_range_starts_over(server: FileServer, cache: Cache, span: str) -> None:
    """The server answers 206 with another range than was asked for; without a Range it serves well."""
    served = Served(DATA, status=206, headers={"Content-Range": span})

    def mend(found: Served) -> None:
        found.status, found.headers = None, {}

    served.then = mend
    server.paths["/artifact"] = served
    cache.put_part(DATA[:1_000])
    assert cache.fetch(server.url()).read_bytes() == DATA
    assert server.ranges == ["bytes=1000-", None]


def test_a_shrunken_file_starts_over_and_is_then_refused(server: FileServer, cache: Cache) -> None:
    """416: the server's file ends before our part does."""
    cache.put_part(DATA[:200_000])
    with pytest.raises(ProtocolError) as caught:
        cache.fetch(server.serve(DATA[:100_000]))
    assert caught.value.code == "digest"
    assert server.ranges == ["bytes=200000-", None]


@pytest.mark.parametrize(
    "how",
    [
        {"data": OTHER},
        {"data": DATA[:-1] + b"?"},
        {"data": DATA + b"x"},
        {"data": DATA[:-1]},
        {"data": b""},
        {"data": DATA + b"x", "chunked": True},
        {"data": DATA[:-1], "chunked": True},
        {"data": DATA + b"x", "bare": True},
        {"endless": True, "headers": {"Content-Length": str(2**40)}},
        {"endless": True, "chunked": True},
        {"endless": True, "bare": True},
    ],
    ids=str,
)
def test_other_bytes_are_refused_and_the_space_is_given_back(server: FileServer, cache: Cache, how: dict) -> None:  # type: ignore[type-arg]
    """Attacks B1, B3 and B4; rules 1 and 5."""
    server.paths["/artifact"] = Served(**{"data": b""} | how)
    with pytest.raises(ProtocolError) as caught:
        cache.fetch(server.url())
    assert caught.value.code == "digest"
    assert cache.names == ["mirrors.json"]
    assert max(cache.progress, default=0) <= len(DATA)


def test_the_right_bytes_in_chunks_or_without_a_length_are_fine(server: FileServer, tmp_path: Path) -> None:
    for how in ({"chunked": True}, {"bare": True}):
        cache = Cache(tmp_path / f"cache-{len(how)}-{'chunked' in how}")
        assert cache.fetch(server.serve(DATA, **how)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"data": DATA[:5_000], "headers": {"Content-Length": "300000"}}, "truncated"),
        ({"data": DATA[:5_000], "bare": True}, "truncated"),
        ({"data": b"<html>log in</html>", "headers": {"Content-Type": "text/html; charset=utf-8"}}, "refused"),
        ({"data": b"<html>log in</html>", "headers": {"Content-Type": "TEXT/HTML"}, "chunked": True}, "refused"),
        ({"data": DATA, "headers": {"Content-Encoding": "gzip"}}, "refused"),
        ({"data": DATA, "headers": {"Content-Length": "-5"}}, "refused"),
        ({"data": DATA, "status": 206}, "refused"),
        ({"data": b"", "status": 204}, "refused"),
        ({"data": b"", "status": 403}, "refused"),
        ({"data": b"", "status": 404}, "refused"),
        ({"data": b"", "status": 500}, "refused"),
        ({"data": b"", "status": 503}, "busy"),
        ({"data": b"", "status": 429}, "busy"),
        ({"cut_after": 0, "data": DATA}, "truncated"),
    ],
    ids=str,
)
def test_what_the_network_does_is_retried_later(server: FileServer, cache: Cache, how: dict, code: str) -> None:  # type: ignore[type-arg]
    """A captive portal, a cut, an error: never spends the attempt."""
    server.paths["/artifact"] = Served(**how)
    with pytest.raises((TransportError, ProtocolError)) as caught:
        cache.fetch(server.url())
    wanted = (ProtocolError, "digest") if how.get("headers") == {"Content-Length": "-5"} else (TransportError, code)
    assert (type(caught.value), caught.value.code) == wanted


def test_a_page_of_exactly_the_signed_length_is_a_wrong_digest(server: FileServer, cache: Cache) -> None:
    with pytest.raises(ProtocolError) as caught:
        cache.fetch(server.serve(OTHER, headers={"Content-Type": "text/html"}))
    assert caught.value.code == "digest"


@pytest.mark.parametrize(
    ("text", "low_s", "high_s"),
    [
        ("120", 120, 120),
        ("0", 0, 0),
        ("99999999999999999999", 86_400, 86_400),
        (formatdate(time.time() + 36_000, usegmt=True), 1, 36_000),
        (formatdate(0, usegmt=True), 0, 0),
    ],
    ids=["seconds", "now", "too-long", "date", "past-date"],
)
def test_a_busy_server_says_when_to_come_back(
    server: FileServer, cache: Cache, text: str, low_s: float, high_s: float
) -> None:
    url = server.serve(b"", status=503, headers={"Retry-After": text})
    with pytest.raises(TransportError) as caught:
        cache.fetch(url)
    assert caught.value.retry_after_s is not None
    assert low_s <= caught.value.retry_after_s <= high_s


@pytest.mark.parametrize("text", ["", "soon", "-5", "1.5", "\u0663"])
def test_a_busy_server_that_says_nothing_sensible(server: FileServer, cache: Cache, text: str) -> None:
    headers = {"Retry-After": text.encode("utf-8").decode("latin-1")}
    with pytest.raises(TransportError) as caught:
        cache.fetch(server.serve(b"", status=429, headers=headers))
    assert (caught.value.code, caught.value.retry_after_s) == ("busy", None)


def test_nobody_there(cache: Cache) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(TransportError) as caught:
            cache.fetch(f"http://127.0.0.1:{closed.getsockname()[1]}/a")
    assert caught.value.code == "unreachable"


def test_no_source_at_all(cache: Cache) -> None:
    with pytest.raises(TransportError) as caught:
        cache.fetch()
    assert caught.value.code == "unreachable"


def test_tls_is_verified(server: FileServer, cache: Cache) -> None:
    """A plain server where TLS is wanted; certificates are the system's."""
    with pytest.raises(TransportError) as caught:
        cache.fetch(server.url().replace("http://", "https://"))
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("how", [{"drip_s": 0.05}, {"drip_headers_s": 0.05}], ids=str)
def test_a_dripping_server_is_given_up(
    server: FileServer,
    tmp_path: Path,
    how: dict,
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[type-arg]
) -> None:
    """Attack B2."""
    monkeypatch.setattr("device_agent.installers.http_source._HEADERS_S", 1.0)
    cache = Cache(tmp_path / "cache", DownloadSettings(allowed_hosts=("127.0.0.1",), deadline_s=1.0))
    with pytest.raises(TransportError) as caught:
        cache.fetch(server.serve(DATA, **how))
    assert caught.value.code in ("slow", "truncated")


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = Cache(tmp_path / "cache", DownloadSettings(allowed_hosts=("127.0.0.1",), deadline_s=1.0))
        with pytest.raises(TransportError) as caught:
            cache.fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/a")
    assert caught.value.code == "slow"


def test_what_does_not_fit_is_not_begun(server: FileServer, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    free = os.statvfs_result((4096, 4096, 10, 10, 10, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: free)
    with pytest.raises(InstallError) as caught:
        cache.fetch(server.serve(DATA))
    assert caught.value.code == "no-space"
    assert (server.requests, cache.names) == ([], [])


def test_a_disk_that_fills_up_meanwhile_gets_its_space_back(
    server: FileServer, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("device_agent.installers.part_file.os.write", full)
    with pytest.raises(OSError, match="No space left"):
        cache.fetch(server.serve(DATA))
    monkeypatch.undo()
    assert cache.names == []
