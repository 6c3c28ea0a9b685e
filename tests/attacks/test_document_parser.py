"""A24: traps for parsers, in every place where a stranger's bytes are parsed."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol import envelope, limits
from fleet_protocol.topics import ROOT, TIMESTAMP
from tests.fakes.trust_device import TrustDevice, enrolled, still_obeys
from tests.fakes.trust_fleet import Fleet

TRAPS = {
    "duplicate": b'{"a": 1, "a": 2}',
    "nan": b'{"a": NaN}',
    "infinity": b'{"a": Infinity}',
    "minus infinity": b'{"a": -Infinity}',
    "overflow": b'{"a": 1e999}',
    "huge integer": b'{"a": 9007199254740992}',
    "digits": b'{"a": ' + b"9" * 100_000 + b"}",
    "deep lists": b"[" * 20_000,
    "deep objects": b'{"a":' * 20_000,
    "deep and closed": b"[" * 17 + b"]" * 17,
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "not utf-8": b'{"a": "\xff\xfe"}',
    "overlong": b'{"a": "\xc0\xaf"}',
    "lone surrogate": b'{"a": "\\ud800"}',
    "lone surrogate as a key": b'{"\\udfff": 1}',
    "escapes without end": b'"' + b'\\"' * 60_000,
    "escapes without end, odd": b'"' + b'\\"' * 60_000 + b"\\",
    "quotes": b'"' * 99_999,
    "brackets in strings": b'{"a": "' + b"[{" * 1_000,
    "single quotes": b"{'a': 1}",
    "comment": b'{"a": 1} // no',
    "trailing comma": b'{"a": 1,}',
    "two values": b"{}{}",
    "nothing": b"",
    "space": b" " * 1_000,
    "nul": b"\0",
    "control characters": b'{"a": "\n"}',
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_as_an_envelope(tmp_path: Path, name: str) -> None:
    fleet, device = enrolled(tmp_path)
    for offer, most in ((device.offer_manifest, 10**6), (device.offer_assignment, 8192), (device.offer_command, 8192)):
        code = device.refused(lambda offer=offer: offer(TRAPS[name]))
        assert code == ("size" if len(TRAPS[name]) > most else "parse")
    still_obeys(fleet, device)


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_as_a_signed_payload(tmp_path: Path, name: str) -> None:
    """A stolen key does not make the parser careless."""
    fleet, device = enrolled(tmp_path)
    data = fleet.sign_payload(TRAPS[name], envelope.MANIFEST_TYPE)
    assert device.refused(lambda: device.offer_manifest(data)) == "parse"
    still_obeys(fleet, device)


@pytest.mark.parametrize("name", TRAPS)
@pytest.mark.parametrize("place", ["root", "timestamp"])
def test_a_trap_as_metadata(tmp_path: Path, name: str, place: str) -> None:
    fleet, device = enrolled(tmp_path)
    topic = fleet.topic(ROOT, version=2) if place == "root" else fleet.topic(TIMESTAMP)
    device.documents = {**fleet.published, topic: TRAPS[name]}
    assert device.attempt(device.refresh) in ({"parse", "size"} if TRAPS[name] else {None, "absent"})
    device.documents = None
    still_obeys(fleet, device)


def test_a_trap_inside_validly_signed_metadata(tmp_path: Path) -> None:
    """The `tuf` library takes the last of two equal keys; whoever looks at the first is fooled, so neither counts."""
    fleet, device = enrolled(tmp_path)
    fleet.publish()
    topic = fleet.topic(TIMESTAMP)
    good = fleet.published[topic]
    for altered in (
        good.replace(b'"version":2}', b'"version":1,"version":2}'),
        good.replace(b'"signatures":', b'"signatures":[],"signatures":'),
    ):
        assert altered != good
        device.documents = {**fleet.published, topic: altered}
        assert device.refused(device.refresh) == "parse"
    device.documents = None
    still_obeys(fleet, device)


FIELDS: dict[str, list[Any]] = {
    "sequence": [True, "2", 2.0, 0, -1, 2**53, None, [2], 1e300],
    "root": [True, "1", 0, None],
    "fleet": [None, 1, "", "ACME", "a/b", "acme\n", "x" * 65, ["acme"]],
    "group": [None, 1, "", "+", "#", "line-1/x"],
    "issued": [None, 0, "", "2026-11-23", "2026-11-23T06:00:00+00:00", "2026-13-01T00:00:00Z", "٢٠٢٦-11-23T06:00:00Z"],
    "expires": [None, 0, "never", "2026-11-23T06:00:00.5Z", "0001-01-01T00:00:00Z"],
    "deployments": [None, {}, "", [None], [1], [{}], [[]]],
    "id": [None, "", "D", "../x", 1, True],
    "package": [None, "", "a.b", "-x", 1],
    "version": [None, "", "1/2", "..", 1],
    "counter": [True, "1", 0, -1, 1.5, 2**53],
    "targets": [None, [], {}, [None], "x"],
    "state": [None, "", "Active", "paused", 1],
    "share_bp": [True, "1", -1, 10_001, 0.5],
    "salt": [None, "", "xyz", "ABCDEF00", "0" * 65, 1],
    "devices": [None, {}, ["+"], [1], "node-1"],
    "fallback": [[], "", 1, {}],
    "not_before": [0, "", "soon"],
    "window": [[], {}, {"start_min": 0}, {"start_min": True, "end_min": 1}, {"start_min": 0, "end_min": 1440}],
    "probation_s": [True, "60", -1, 10**9, 1.5],
    "sources": [None, {}, [1], [{"sha256": "0" * 64}], [{"sha256": "x", "url": "https://a"}]],
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_another_type_or_out_of_bounds(tmp_path: Path, name: str) -> None:
    fleet, device = enrolled(tmp_path)
    good = json.loads(payload(fleet))
    for value in FIELDS[name]:
        for missing in (False, True):
            document = json.loads(json.dumps(good))
            place = document if name in document else document["deployments"][0]
            if missing:
                del place[name]
            else:
                place[name] = value
            data = fleet.sign_payload(json.dumps(document).encode(), envelope.MANIFEST_TYPE)
            assert device.refused(lambda data=data: device.offer_manifest(data)) in ("schema", "parse"), value
    still_obeys(fleet, device)


def test_more_of_everything_than_is_allowed(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    good = json.loads(payload(fleet))
    row = good["deployments"][0]
    many = {
        "deployments": {**good, "deployments": [{**row, "id": f"d-{n}"} for n in range(limits.DEPLOYMENTS + 1)]},
        "twice": {**good, "deployments": [row, row]},
        "targets": {**good, "deployments": [{**row, "targets": row["targets"] * 17}]},
        "one target twice": {**good, "deployments": [{**row, "targets": row["targets"] * 2}]},
        "devices": {**good, "deployments": [{**row, "devices": ["n"] * (limits.DEVICES_PER_DEPLOYMENT + 1)}]},
        "sources": {**good, "deployments": [{**row, "sources": [{"sha256": "0" * 64, "url": "https://a"}] * 65}]},
        "url": {**good, "deployments": [{**row, "sources": [{"sha256": "0" * 64, "url": "https://" + "a" * 2_048}]}]},
    }
    for name, document in many.items():
        data = fleet.sign_payload(json.dumps(document).encode(), envelope.MANIFEST_TYPE)
        assert device.refused(lambda data=data: device.offer_manifest(data)) in ("schema", "size"), name
    still_obeys(fleet, device)


def test_the_largest_manifest_that_is_allowed_is_accepted(tmp_path: Path) -> None:
    fleet, device = enrolled(tmp_path)
    names = [f"node-{number:05d}" for number in range(limits.DEVICES_PER_DEPLOYMENT)]
    rows = [fleet.deployment("my-service", "1.1.0", id=f"d-{n}", devices=names) for n in range(6)]
    data = fleet.manifest(*rows)
    assert 200_000 < len(data) <= limits.MANIFEST_SIZE
    assert len(device.offer_manifest(data)["deployments"]) == 6


def test_megabytes_are_refused_unread(tmp_path: Path) -> None:
    """Memory stays bounded by the topic's size, whatever is sent."""
    fleet, device = enrolled(tmp_path)
    flood = b'{"payload": "' + b"A" * 30_000_000
    path = tmp_path / "spool" / "document"
    path.write_bytes(flood)
    del flood
    from device_agent.trust.ops import assignment, command, manifest

    tracemalloc.start()
    try:
        args = {"path": str(path), "group": "line-1"}
        for op in (manifest, assignment, command):
            assert device.refused(lambda op=op: op.run(args, device.context())) == "size"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000
    still_obeys(fleet, device)


def payload(fleet: Fleet) -> bytes:
    document = fleet.manifest(fleet.deployment("my-service", "1.1.0", fallback="1.0.0", urls=["https://a.example"]))
    return envelope.decode(document, max_size=limits.MANIFEST_SIZE).payload


def test_the_fields_above_are_all_there_are(tmp_path: Path) -> None:
    """A new field needs its rows."""
    fleet = TrustDevice(Fleet(), tmp_path).fleet
    fleet.add_release("my-service", "1.0.0", 1)
    fleet.add_release("my-service", "1.1.0", 2)
    document = json.loads(payload(fleet))
    assert set(FIELDS) == (set(document) | set(document["deployments"][0])) - {"_type", "v"}
