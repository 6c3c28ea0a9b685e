"""Which source a download comes from, and which are refused: device_agent/installers/download.py, rule 4."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.settings import DownloadSettings
from fleet_protocol.errors import ProtocolError, TransportError
from tests.fakes.download_cache import ARTIFACT, DATA, OTHER, Cache
from tests.fakes.http_server import FileServer, Served, file_server


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_one_bad_mirror_does_not_matter(server: FileServer, cache: Cache) -> None:
    """Attack B15, rule 4: and it is asked last the next time."""
    with file_server() as bad:
        wrong, right = bad.serve(OTHER), server.serve(DATA)
        assert cache.fetch(wrong, right).read_bytes() == DATA
        (cache.path / ARTIFACT.sha256).unlink()
        assert cache.fetch(wrong, right).read_bytes() == DATA
        assert (len(bad.requests), len(server.requests)) == (1, 2)


def test_a_mirror_that_works_again_is_forgiven(server: FileServer, cache: Cache) -> None:
    url = server.serve(DATA, cut_after=10)
    with pytest.raises(TransportError):
        cache.fetch(url)
    cache.fetch(url)
    assert json.loads((cache.path / "mirrors.json").read_text()) == {}


@pytest.mark.parametrize("text", ["[]", "torn", '{"a": "b"}'])
def test_a_torn_record_of_mirrors_is_no_record(server: FileServer, cache: Cache, text: str) -> None:
    (cache.path / "mirrors.json").write_text(text)
    assert cache.fetch(server.serve(DATA)).read_bytes() == DATA


def test_as_long_as_one_source_may_work_the_release_is_not_refused(server: FileServer, cache: Cache) -> None:
    urls = [server.serve(OTHER), server.serve(b"", "/busy", status=503, headers={"Retry-After": "7"})]
    with pytest.raises(TransportError) as caught:
        cache.fetch(*urls, server.url("/missing"), "file:///etc/passwd")
    assert (caught.value.code, caught.value.retry_after_s) == ("busy", 7.0)


def test_where_all_sources_are_to_blame_it_is(server: FileServer, cache: Cache) -> None:
    with pytest.raises(ProtocolError) as caught:
        cache.fetch("file:///etc/passwd", server.serve(OTHER))
    assert caught.value.code == "digest"


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "http://127.0.0.2/a", "http://169.254.169.254/latest", "http://[::1]/"],
)
def test_an_address_that_is_not_allowed(cache: Cache, url: str) -> None:
    """Attack A23."""
    with pytest.raises(ProtocolError) as caught:
        cache.fetch(url)
    assert caught.value.code == "url"


def test_redirects_are_followed_within_the_rules(server: FileServer, cache: Cache) -> None:
    """Attack A23: the chain is bounded and every address of it is checked."""
    server.serve(DATA)
    hop = {"status": 302, "data": b""}
    server.paths["/1"] = Served(headers={"Location": "/2"}, **hop)  # type: ignore[arg-type]
    server.paths["/2"] = Served(headers={"Location": server.url(host="localhost")}, **hop)  # type: ignore[arg-type]
    server.paths["/loop"] = Served(headers={"Location": "/loop"}, **hop)  # type: ignore[arg-type]
    server.paths["/out"] = Served(headers={"Location": "http://127.0.0.2/a"}, **hop)  # type: ignore[arg-type]
    server.paths["/file"] = Served(headers={"Location": "file:///etc/passwd"}, **hop)  # type: ignore[arg-type]
    server.paths["/none"] = Served(**hop)  # type: ignore[arg-type]
    for path in ("/loop", "/out", "/file", "/none"):
        with pytest.raises(ProtocolError) as caught:
            cache.fetch(server.url(path))
        assert caught.value.code == "url"
    before = len(server.requests)
    assert cache.fetch(server.url("/1")).read_bytes() == DATA
    assert len(server.requests) == before + 3


def test_a_host_that_the_public_wildcard_does_not_mean(server: FileServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", DownloadSettings(allowed_hosts=("*",)))
    with pytest.raises(ProtocolError) as caught:
        cache.fetch(server.serve(DATA))
    assert caught.value.code == "url"
    assert server.requests == []
