"""The golden vectors: reproducible, complete, and what our code does."""

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet_protocol import acceptance, envelope, schema, strict_json
from fleet_protocol.acceptance import CatalogueTarget, Mark
from fleet_protocol.archive import MemberNames
from fleet_protocol.catalogue import TargetInfo
from fleet_protocol.envelope import key_set
from fleet_protocol.errors import CODES, ProtocolError
from fleet_protocol.manifest import Deployment, Manifest, bucket
from fleet_protocol.timestamps import format_time, parse_time
from fleet_protocol.topics import Topics
from tests.vectors import make_vectors
from tests.vectors.cases_signing import DEPLOYMENT

VECTORS = Path(make_vectors.__file__).parent
FILES = sorted(path for kind in make_vectors.KINDS for path in (VECTORS / kind).glob("*.json"))
Json = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _pae(case: Json) -> Json:
    return {"pae_base64": b64(envelope.pae(case["payload_type"], base64.b64decode(case["payload_base64"])))}


def _envelope(case: Json) -> Json:
    role = key_set(case["role"]["threshold"], case["role"]["keys"])
    signed = envelope.decode(case["envelope"].encode(), max_size=case["max_size"])
    return {"payload_base64": b64(envelope.verify(signed, case["payload_type"], role))}


def _acceptance(case: Json) -> Json:
    before = case["obeyed"]
    mark = None
    if before is not None:
        voters = frozenset(f"ed25519:{public}" for public in before["keys"])
        mark = Mark(sequence=before["sequence"], digest=before["payload_sha256"], voters=voters)
    opened = acceptance.open_manifest(
        case["envelope"].encode(),
        role=key_set(case["role"]["threshold"], case["role"]["keys"]),
        fleet=case["fleet"],
        group=case["group"],
        now_s=parse_time(case["now"]),
        mark=mark,
    )
    return {"sequence": opened.document.sequence, "known": opened.known}


def _manifest(case: Json) -> Json:
    found = schema.from_payload(Manifest, case["payload"].encode(), max_size=100_000)
    return {"sequence": found.sequence, "deployments": [deployment.id for deployment in found.deployments]}


def _targetinfo(case: Json) -> Json:
    info = schema.from_value(TargetInfo, case["custom"])
    return {"package": info.package, "counter": info.counter}


class _Catalogue:
    def __init__(self, case: Json) -> None:
        self._entries, self._floors = case["catalogue"], case["floors"]

    def target(self, path: str) -> CatalogueTarget | None:
        entry = self._entries.get(path)
        if entry is None:
            return None
        info = schema.from_value(TargetInfo, entry["custom"])
        return CatalogueTarget(length=entry["length"], sha256=entry["sha256"], info=info)

    def floor(self, package: str) -> int:
        return int(self._floors.get(package, 0))

    def lists(self, package: str, sha256: str) -> bool:
        rows = [(entry["custom"]["package"], entry["sha256"]) for entry in self._entries.values()]
        return (package, sha256) in rows


def _match(case: Json) -> Json:
    deployment = schema.from_value(Deployment, case["deployment"])
    match = acceptance.match(deployment, _Catalogue(case), case["class"])
    if match.refusal is not None:
        raise ProtocolError(match.refusal, match.detail)
    paths = [part.target.path for part in match.parts]
    return {"path": paths[0]} if len(paths) == 1 else {"paths": paths}


def _membership(case: Json) -> Json:
    if "share_bp" not in case:
        buckets = {row["device"]: row["bucket"] for row in case["expect"]["ok"]["buckets"]}
        assert {device: bucket(case["salt"], device) for device in case["devices"]} == buckets
        return {"buckets": case["expect"]["ok"]["buckets"]}
    changes = {"salt": case["salt"], "share_bp": case["share_bp"], "devices": tuple(case["devices"])}
    deployment = dataclasses.replace(schema.from_value(Deployment, DEPLOYMENT), **changes)
    return {"takes_part": deployment.takes_part(case["device"])}


def _strict_json(case: Json) -> Json:
    data = case["text"].encode() if "text" in case else base64.b64decode(case["base64"])
    return {"value": strict_json.loads(data, max_size=case["max_size"])}


def _topics(case: Json) -> Json:
    topics = Topics(case["prefix"])
    address = topics.parse(case["topic"])
    assert topics.of(address.type, **address.values) == case["topic"]
    return {
        "type": address.type.name,
        "values": dict(address.values),
        "qos": address.type.qos,
        "retain": address.type.retain,
    }


def _timestamps(case: Json) -> Json:
    epoch_s = parse_time(case["time"])
    assert format_time(epoch_s) == case["time"]
    return {"epoch_s": epoch_s}


def _archive(case: Json) -> Json:
    names = MemberNames()
    for member in case["members"]:
        names.add(member["name"], directory=member["directory"])
    return {"count": len(names)}


RUN: dict[str, Callable[[Json], Json]] = {
    "pae": _pae,
    "envelope": _envelope,
    "acceptance": _acceptance,
    "manifest": _manifest,
    "targetinfo": _targetinfo,
    "match": _match,
    "membership": _membership,
    "strict_json": _strict_json,
    "topics": _topics,
    "timestamps": _timestamps,
    "archive": _archive,
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_our_code_agrees(path: Path) -> None:
    case = json.loads(path.read_bytes())
    assert case["name"] == f"{path.parent.name}/{path.stem}"
    assert case["what"]
    run = RUN[path.parent.name]
    expect = case["expect"]
    if "code" in expect:
        assert expect["code"] in CODES
        with pytest.raises(ProtocolError) as caught:
            run(case)
        assert caught.value.code == expect["code"]
    else:
        assert run(case) == expect["ok"]


def test_the_generator_writes_exactly_the_committed_files() -> None:
    made = make_vectors.vectors()
    found = {
        str(path.relative_to(VECTORS)): path.read_bytes()
        for kind in (*make_vectors.KINDS, "example")
        for path in (VECTORS / kind).iterdir()
    }
    assert made.keys() == found.keys()
    assert made == found


def test_the_generator_shares_no_code_with_us() -> None:
    ours = ("fleet_protocol", "firmware_tools", "device_agent", "server", "broker_config")
    for path in VECTORS.glob("*.py"):
        for line in path.read_text().splitlines():
            assert not (line.startswith(("import ", "from ")) and line.split()[1].startswith(ours)), path


def test_every_kind_has_good_and_bad_ones() -> None:
    assert RUN.keys() == make_vectors.KINDS.keys()
    for kind in make_vectors.KINDS:
        expects = [json.loads(path.read_bytes())["expect"] for path in (VECTORS / kind).glob("*.json")]
        assert any("ok" in expect for expect in expects)
        if kind not in ("pae", "membership"):
            assert any("code" in expect for expect in expects)


def test_no_private_key_is_committed() -> None:
    for path in VECTORS.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert b"PRIVATE KEY" not in path.read_bytes()


def test_the_index_names_every_kind() -> None:
    text = (VECTORS / "README.md").read_text()
    for kind in (*make_vectors.KINDS, "example"):
        assert f"`{kind}/`" in text
