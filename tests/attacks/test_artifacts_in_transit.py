"""Attacks B1 to B5 and B15, and A23: what a mirror or the network may do to an artifact."""

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.installers.hashing import hash_lane
from device_agent.installers.verified_file import open_verified
from fleet_protocol.errors import ProtocolError
from tests.fakes.artifacts import END, Artifact, member, tar, zst
from tests.fakes.attack_scene import GOOD, AttackScene, attack_scene
from tests.fakes.http_server import Served
from tests.fakes.install_shell import deployment

DATA = GOOD[2].data


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[AttackScene]:
    with attack_scene(tmp_path, deadline_s=2.0) as found:
        yield found


@pytest.mark.parametrize(
    "how",
    [
        {"endless": True, "headers": {"Content-Length": str(2**40)}},
        {"endless": True, "chunked": True},
        {"endless": True, "bare": True},
        {"data": DATA + b"\0"},
        {"data": DATA + b"\0", "chunked": True},
        {"data": DATA * 2, "bare": True},
    ],
    ids=str,
)
def test_b1_endless_or_longer_data(scene: AttackScene, how: dict) -> None:  # type: ignore[type-arg]
    scene.server.paths["/2"] = Served(**how)
    scene.rejects("digest", scene.target(2, urls=[scene.server.url("/2")]))


def test_b2_slow_retrieval_spends_no_attempt(scene: AttackScene) -> None:
    url = scene.server.serve(DATA, "/2", drip_s=0.05)
    scene.server.paths["/2"].then = lambda served: setattr(served, "drip_s", None)
    scene.install(scene.release(2, scene.target(2, urls=[url])))
    assert scene.shell.outcomes[-1] == ("d-2", "committed", None)
    assert scene.shell.attacks == []
    assert len([path for path, _ in scene.server.requests if path == "/2"]) >= 2


@pytest.mark.parametrize("offset", range(0, len(DATA), 17))
def test_b3_substituted_at_any_byte(tmp_path_factory: pytest.TempPathFactory, offset: int) -> None:
    """Without the whole scene: the reader that fetch and stage share refuses it."""
    changed = bytearray(DATA)
    changed[offset] ^= 1
    digest = hashlib.sha256(changed).hexdigest()
    assert digest != GOOD[2].sha256
    root = tmp_path_factory.mktemp("cached")
    path = root / "file"
    path.write_bytes(changed)
    with (
        hash_lane() as lane,
        open_verified(path, len(DATA), GOOD[2].sha256, lane) as source,
        pytest.raises(ProtocolError) as caught,
    ):
        source.finish()
    assert caught.value.code == "digest"


@pytest.mark.parametrize(
    "data", [GOOD[1].data, b"", bytes(len(DATA)), DATA[:-1], DATA[1:], DATA[:-1] + b"\xff"], ids=len
)
def test_b3_substituted_or_truncated(scene: AttackScene, data: bytes) -> None:
    scene.rejects("digest", scene.target(2, urls=[scene.server.serve(data, "/2")]))


def test_b3_resumed_from_another_file(scene: AttackScene) -> None:
    """The first half of one file and the second half of another never meet."""
    other = bytes(len(DATA))
    url = scene.server.serve(other, "/2", cut_after=len(DATA) // 2, etag=None)
    scene.server.paths["/2"].then = lambda served: setattr(served, "data", DATA)
    scene.install(scene.release(2, scene.target(2, urls=[url])))
    assert scene.shell.outcomes[-1] == ("d-2", "committed", None)
    assert scene.server.ranges[-3:-1] == [None, f"bytes={len(DATA) // 2}-"]


@pytest.mark.parametrize(
    "data",
    [
        DATA + b"\0",
        DATA + DATA,
        DATA + zst(b""),
        zst(tar({"run": b"x"}) + b"hidden"),
        zst(tar({"run": b"x"})[:-512]),
        zst(member("run", b"x") + END + member("late", b"x") + END),
    ],
    ids=len,
)
def test_b4_extra_data_at_any_layer_even_if_signed(scene: AttackScene, data: bytes) -> None:
    """The digest is right here: the signer was careless. The container says where it ends."""
    target = scene.target(2, Artifact(data, 1 if len(data) < len(DATA) else GOOD[2].unpacked_size, 1))
    scene.install(scene.release(2, target))
    name, outcome, code = scene.shell.outcomes[-1]
    assert (name, outcome) == ("d-2", "failed")
    assert code in ("format", "archive")
    scene.unharmed()


def test_b5_the_tail_beyond_4_gib_is_covered(tmp_path: Path) -> None:
    """One read of 2^32 + 5 bytes: the last one is in the digest that is found, so it decides."""
    signed = "07d7391a8054fd02aeb7c293811b4f9f5820f89aa06405d9013e644a9e916083"  # ends with a byte 1
    found = "6093f56ef96b2ab66250fae0fa06e2825a4b9f99a298e27f770aa29ece380bc9"  # ends with a byte 2
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**32 + 4)
        file.seek(2**32 + 4)
        file.write(b"\2")
    with hash_lane() as lane, open_verified(path, 2**32 + 5, signed, lane) as source:
        with pytest.raises(ProtocolError, match=found) as caught:
            source.finish()
        assert source.consumed == 2**32 + 5
    path.unlink()
    assert caught.value.code == "digest"


def test_b15_one_bad_mirror(scene: AttackScene) -> None:
    bad = [
        scene.server.serve(bytes(len(DATA)), "/wrong"),
        scene.server.serve(DATA + b"x", "/long"),
        scene.server.serve(DATA[:10], "/short"),
        scene.server.serve(b"<html>", "/portal", headers={"Content-Type": "text/html"}),
        scene.server.url("/missing"),
        "http://127.0.0.1:1/refused",
    ]
    good = scene.server.serve(DATA, "/2")
    scene.install(scene.release(2, scene.target(2, urls=[*bad, good])))
    assert scene.shell.outcomes[-1] == ("d-2", "committed", None)
    assert scene.shell.attacks == []


def _portal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that calls every name itself; the one part that can not be real here."""
    real = socket.getaddrinfo

    def lead(host: str, *rest: Any, **how: Any) -> Any:
        return real("192.168.1.1" if host == "mirror.example" else host, *rest, **how)

    monkeypatch.setattr(socket, "getaddrinfo", lead)


@pytest.mark.parametrize("others", [True, False], ids=["another source", "no other source"])
def test_b15_the_name_server_of_a_captive_portal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: bool) -> None:
    """It is nobody's attack and spends no attempt."""
    _portal(monkeypatch)
    with attack_scene(tmp_path, allowed_hosts=["*", "127.0.0.1"]) as scene:
        urls = ["https://mirror.example/2", *([scene.server.serve(DATA, "/2")] if others else [])]
        scene.shell.publish(deployment("d-2", scene.release(2, scene.target(2, urls=urls))))
        scene.shell.carry_on()
        if others:
            scene.shell.settle()
            assert scene.shell.outcomes[-1] == ("d-2", "committed", None)
        else:
            assert (scene.shell.record.stage, scene.shell.record.failures) == ("downloading", {})
        assert scene.shell.attacks == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/a",
        "http://127.0.0.2/a",
        "http://localhost/a",
        "http://[::ffff:127.0.0.1]/a",
        "http://user:secret@127.0.0.1/a",
    ],
)
def test_a23_addresses_that_are_not_allowed(scene: AttackScene, url: str) -> None:
    scene.rejects("url", scene.target(2, urls=[url]))


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://10.0.0.1/a", "http://127.0.0.2/a", "/2"])
def test_a23_redirects_that_are_not_allowed(scene: AttackScene, location: str) -> None:
    scene.server.paths["/2"] = Served(status=302, headers={"Location": location})
    scene.rejects("url", scene.target(2, urls=[scene.server.url("/2")]))
