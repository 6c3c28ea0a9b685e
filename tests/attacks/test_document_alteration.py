"""A1, A10, A25 and invariant K4: arbitrary and altered documents."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol.errors import ProtocolError
from fleet_protocol.topics import ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from tests.fakes.trust_device import TrustDevice, enrolled, still_obeys
from tests.fakes.trust_fleet import Fleet

ALTERED = {"signature", "threshold", "parse", "envelope", "type", "schema", "size"}
ALTERED_METADATA = ALTERED | {"root", "metadata", "mismatch", "replay"}


URL_SAFE = bytes.maketrans(b"-_", b"+/")
"""The two alphabets of base64 spell one value; a byte exchanged between them alters nothing."""


def flips(data: bytes, seed: int, step: int = 1) -> Iterator[tuple[int, bytes]]:
    """Every `step`th byte replaced by another one."""
    luck = random.Random(seed)
    for offset in range(seed % step, len(data), step):
        altered = bytearray(data)
        altered[offset] ^= luck.randrange(1, 256)
        yield offset, bytes(altered)


def cuts(data: bytes) -> list[bytes]:
    """Cut short, lengthened, doubled, emptied, shuffled."""
    middle = len(data) // 2
    return [b"", data[:1], data[:middle], data[:-1], data[middle:], data + b" x", data * 2, b"\0" * len(data)]


def offer(fleet: Fleet, device: TrustDevice, name: str) -> tuple[bytes, Callable[[bytes], Any]]:
    """A fresh valid document of one kind, and how to offer one."""
    if name == "manifest":
        return fleet.manifest(fleet.deployment("my-service", "1.1.0")), device.offer_manifest
    if name == "assignment":
        return fleet.assignment(), device.offer_assignment
    return fleet.command(id="c-1"), device.offer_command


@pytest.mark.parametrize("name", ["manifest", "assignment", "command"])
def test_an_envelope_altered_at_any_byte_is_refused(tmp_path: Path, name: str) -> None:
    fleet, device = enrolled(tmp_path)
    good, offered = offer(fleet, device, name)
    for offset, altered in flips(good, seed=1):
        if altered.translate(URL_SAFE) == good:
            continue
        assert device.refused(lambda altered=altered: offered(altered)) in ALTERED, offset
    offered(good)
    still_obeys(fleet, device)


@pytest.mark.parametrize("name", ["manifest", "assignment", "command"])
def test_an_envelope_cut_or_lengthened_is_refused(tmp_path: Path, name: str) -> None:
    fleet, device = enrolled(tmp_path)
    good, offered = offer(fleet, device, name)
    for altered in [*cuts(good), b"x" * 300_000]:
        assert device.refused(lambda altered=altered: offered(altered)) in ALTERED
    offered(good)
    still_obeys(fleet, device)


@pytest.mark.parametrize(("name", "step"), [("timestamp", 1), ("snapshot", 1), ("targets", 5), ("root", 11)])
def test_metadata_altered_at_any_byte_is_refused_or_says_the_same(tmp_path: Path, name: str, step: int) -> None:
    fleet, device = enrolled(tmp_path)
    topic = newest(fleet, name)
    for offset, altered in flips(fleet.published[topic], seed=2, step=step):
        good = fleet.published[topic]
        device.documents = {**fleet.published, topic: altered}
        code = device.refused_metadata(altered)
        if code is None:  # white space, or a signature more than are needed: not what was signed
            assert signed(altered) == signed(good), offset
            device = again(fleet, tmp_path / str(offset))
        else:
            assert code in ALTERED_METADATA, (offset, code)
    device.documents = None
    device.refresh()
    still_obeys(fleet, device)


@pytest.mark.parametrize("name", ["timestamp", "snapshot", "targets", "root"])
def test_metadata_cut_or_lengthened_is_refused_and_not_kept(tmp_path: Path, name: str) -> None:
    """A10: what was refused is in no cache, so that it blocks nothing."""
    fleet, device = enrolled(tmp_path)
    topic = newest(fleet, name)
    for altered in [*cuts(fleet.published[topic])[1:], b"{}", b"[]", b"null", b'{"signed": 1, "signatures": []}']:
        device.documents = {**fleet.published, topic: altered}
        assert device.refused_metadata(altered) in ALTERED_METADATA
    device.documents = None
    assert device.refresh()[name] == 2
    still_obeys(fleet, device)


def test_the_bytes_that_were_verified_are_the_ones_that_are_used(tmp_path: Path) -> None:
    """A25: the file is exchanged while the device verifies, and nobody looks at it again."""
    fleet, device = enrolled(tmp_path)
    first = fleet.manifest(fleet.deployment("my-service", "1.1.0"))
    other = fleet.fork().manifest(fleet.deployment("my-service", "1.0.0"), sequence=fleet.sequence + 1)
    read = device.want

    def exchanging(topic: str) -> bytes | None:
        (tmp_path / "spool" / "document").write_bytes(other)
        return read(topic)

    device.want = exchanging
    plan = device.offer_manifest(first)
    assert (plan["sequence"], plan["deployments"][0]["release"]["version"]) == (2, "1.1.0")
    device.want = read
    still_obeys(fleet, device)


def test_an_answer_that_changes_between_two_reads_is_refused_or_consistent(tmp_path: Path) -> None:
    """A25 for metadata: each document is read once; a second answer has no second chance."""
    fleet, device = enrolled(tmp_path)
    fleet.publish()
    asked: list[str] = []
    read = device.want

    def counting(topic: str) -> bytes | None:
        assert topic not in asked, "read twice in one refresh"
        asked.append(topic)
        return read(topic)

    device.want = counting
    device.refresh()
    assert len(asked) == 4


def again(fleet: Fleet, state_dir: Path) -> TrustDevice:
    """Another device that has not seen the newest documents."""
    device = TrustDevice(fleet, state_dir)
    device.offer_assignment(fleet.assignment())
    return device


def newest(fleet: Fleet, name: str) -> str:
    """The topic of a document that the device has not seen yet, freshly published."""
    if name == "root":
        fleet.rotate()
        return fleet.topic(ROOT, version=2)
    fleet.publish()
    kinds = {"snapshot": SNAPSHOT, "targets": TARGETS}
    return fleet.topic(TIMESTAMP) if name == "timestamp" else fleet.topic(kinds[name], version=2)


def signed(data: bytes) -> Any:
    """What the signatures of a metadata file are about."""
    try:
        return json.loads(data)["signed"]
    except (ValueError, KeyError) as error:
        raise ProtocolError("parse", str(error)) from error
