"""A whole small fleet at one moment, as the broker holds it: the worked example of `docs/protocol.md`."""

from tests.vectors.cases_documents import INFO
from tests.vectors.primitives import Json, TestKey, compact, envelope, metadata, sha256

FLEET, GROUP, DEVICE = "acme", "line-1", "node-1"
SPEC = "1.0.31"
OFFLINE = {role: [TestKey(f"{role}-{number}") for number in (1, 2, 3)] for role in ("root", "targets")}
ONLINE = {role: [TestKey(role)] for role in ("snapshot", "timestamp", "deployment")}
KEYS = OFFLINE | ONLINE
ARTIFACT = b"This stands for the bytes of my-service 1.2.0.\n"
PATH = "my-service/1.2.0/aarch64.tar.zst"


def _named(key: TestKey, name: str) -> Json:
    return key.tuf | {"x-fairlead-name": name}


def root() -> Json:
    names = {role: [f"{role}-{n}" for n in (1, 2, 3)] if role in OFFLINE else [role] for role in KEYS}
    listed = {
        key.keyid: _named(key, name)
        for role in ("root", "targets", "snapshot", "timestamp")
        for key, name in zip(KEYS[role], names[role], strict=True)
    }
    deployment = KEYS["deployment"][0]
    signed: Json = {
        "_type": "root",
        "spec_version": SPEC,
        "version": 1,
        "expires": "2036-11-20T00:00:00Z",
        "consistent_snapshot": True,
        "keys": listed,
        "roles": {
            role: {"keyids": sorted(key.keyid for key in KEYS[role]), "threshold": 2 if role in OFFLINE else 1}
            for role in ("root", "targets", "snapshot", "timestamp")
        },
        "x-fleet": {
            "fleet": FLEET,
            "roles": {"deployment": {"threshold": 1, "keys": {deployment.keyid: _named(deployment, "deployment")}}},
        },
    }
    return metadata(signed, *KEYS["root"][:2])


def targets() -> Json:
    entry = {"length": len(ARTIFACT), "hashes": {"sha256": sha256(ARTIFACT)}, "custom": INFO}
    signed: Json = {
        "_type": "targets",
        "spec_version": SPEC,
        "version": 1,
        "expires": "2036-11-20T00:00:00Z",
        "targets": {PATH: entry},
        "x-floor": {"my-service": 11},
    }
    return metadata(signed, *KEYS["targets"][:2])


def _bound(data: bytes) -> Json:
    return {"version": 1, "length": len(data), "hashes": {"sha256": sha256(data)}}


def snapshot(bound: bytes) -> Json:
    signed = {"_type": "snapshot", "spec_version": SPEC, "version": 1, "expires": "2036-11-20T00:00:00Z"}
    return metadata(signed | {"meta": {"targets.json": _bound(bound)}}, *KEYS["snapshot"])


def timestamp(bound: bytes) -> Json:
    signed = {"_type": "timestamp", "spec_version": SPEC, "version": 1, "expires": "2036-11-20T00:00:00Z"}
    return metadata(signed | {"meta": {"snapshot.json": _bound(bound)}}, *KEYS["timestamp"])


def manifest() -> Json:
    return {
        "_type": "fairlead.manifest",
        "v": 1,
        "fleet": FLEET,
        "group": GROUP,
        "sequence": 57,
        "root": 1,
        "issued": "2026-11-23T06:00:00Z",
        "expires": "2036-11-20T00:00:00Z",
        "deployments": [
            {
                "id": "d-0192",
                "package": "my-service",
                "version": "1.2.0",
                "counter": 12,
                "targets": [{"path": PATH, "length": len(ARTIFACT), "sha256": sha256(ARTIFACT)}],
                "state": "active",
                "share_bp": 500,
                "salt": "6f2c9e01",
                "devices": [DEVICE],
                "fallback": {"version": "1.1.0", "counter": 11, "targets": []},
                "not_before": None,
                "window": None,
                "probation_s": 60,
                "sources": [{"sha256": sha256(ARTIFACT), "url": "https://updates.example.org/my-service.tar.zst"}],
            }
        ],
    }


def assignment() -> Json:
    document = {"_type": "fairlead.assignment", "v": 1, "fleet": FLEET, "device": DEVICE, "group": GROUP}
    return document | {"sequence": 1, "issued": "2026-11-23T06:00:00Z"}


def command() -> Json:
    document: Json = {"_type": "fairlead.command", "v": 1, "fleet": FLEET, "device": DEVICE, "id": "c-7"}
    document |= {"name": "fetch-logs", "package": None, "service": "my-service", "lines": 100}
    return document | {"issued": "2026-11-23T06:00:00Z", "expires": "2026-11-23T06:01:00Z"}


def report() -> Json:
    installed = {"package": "my-service", "version": "1.2.0", "counter": 12, "deployment": "d-0192"}
    attempt: Json = {"deployment": "d-0192", "package": "my-service", "version": "1.2.0", "counter": 12, "number": 1}
    attempt |= {"stage": "idle", "outcome": "committed", "code": None, "detail": ""}
    document: Json = {
        "_type": "fairlead.report",
        "v": 1,
        "fleet": FLEET,
        "device": DEVICE,
        "boot": "b-3",
        "counter": 41,
    }
    document |= {"time": "2026-11-23T06:05:00Z", "group": GROUP, "sequence": 57, "root": 1, "installed": [installed]}
    return document | {"attempt": attempt, "attack": None, "attacks": {}, "why": "up to date"}


def files() -> dict[str, bytes]:
    """File name -> bytes exactly as they stand on the broker."""
    targets_data = compact(targets()).encode()
    snapshot_data = compact(snapshot(targets_data)).encode()
    device = TestKey("device node-1")
    signed = {
        "manifest": (manifest(), KEYS["deployment"][0]),
        "assignment": (assignment(), KEYS["deployment"][0]),
        "command": (command(), KEYS["deployment"][0]),
        "report": (report(), device),
    }
    found = {
        "1.root.json": compact(root()).encode(),
        "1.targets.json": targets_data,
        "1.snapshot.json": snapshot_data,
        "timestamp.json": compact(timestamp(snapshot_data)).encode(),
        "artifact": ARTIFACT,
        "device-key.json": (compact({"keyid": device.keyid, "key": device.tuf}) + "\n").encode(),
    }
    for name, (document, key) in signed.items():
        payload = compact(document).encode()
        kind = f"application/vnd.fairlead.{name}.v1+json"
        found[f"{name}.json"] = compact(envelope(payload, kind, key)).encode()
    return found
