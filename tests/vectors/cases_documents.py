"""Vectors of documents: manifest payloads, descriptions of artifacts, matching with the catalogue, membership."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from tests.vectors.cases_signing import DEPLOYMENT, MANIFEST
from tests.vectors.primitives import Json, bucket, compact, ok, refused, sha256


def _changed(value: Any, path: str, new: Any) -> Any:
    """A copy in which the member at `a.0.b` is `new`; `...` removes it."""
    value = copy.deepcopy(value)
    inner = value
    *parents, last = path.split(".")
    for part in parents:
        inner = inner[int(part)] if part.isdigit() else inner[part]
    if new is ...:
        del inner[last]
    elif isinstance(inner, list):
        inner[int(last)] = new
    else:
        inner[last] = new
    return value


def payload_cases() -> Iterator[tuple[str, Json]]:
    summary = ok(sequence=57, deployments=["d-0192"])
    yield "good", _payload("the example of the protocol document", MANIFEST, summary)
    yield (
        "good-empty",
        _payload("no deployment at all", MANIFEST | {"deployments": []}, ok(sequence=57, deployments=[])),
    )
    pretty = {"what": "spaces and order do not matter", "payload": json.dumps(MANIFEST, indent=1), "expect": summary}
    yield "good-pretty", pretty
    window = _changed(MANIFEST, "deployments.0.window", {"start_min": 1_320, "end_min": 240})
    yield "good-window", _payload("a window over midnight", window, summary)
    recalled = _changed(MANIFEST, "deployments.0.state", "recalled")
    yield "good-recalled", _payload("a recall", recalled, summary)
    for name, (path, new, code, what) in _WRONG.items():
        yield name, _payload(what, _changed(MANIFEST, path, new), refused(code))
    text = compact(MANIFEST)
    raw = {
        "duplicate-key": (text.replace('"sequence":57', '"sequence":56,"sequence":57'), "parse", "a key twice (A24)"),
        "nan": (text.replace('"sequence":57', '"sequence":NaN'), "parse", "NaN is not JSON (A24)"),
        "huge": (text.replace('"sequence":57', '"sequence":9007199254740992'), "parse", "beyond 2^53-1 (A24)"),
        "exponent": (text.replace('"sequence":57', '"sequence":57e0'), "schema", "a float, though a whole one"),
        "cut": (text[:-1], "parse", "cut off"),
        "tail": (text + "{}", "parse", "something after the end"),
    }
    for name, (payload, code, what) in raw.items():
        yield name, {"what": what, "payload": payload, "expect": refused(code)}
    two = MANIFEST | {"deployments": [DEPLOYMENT, DEPLOYMENT]}
    yield "two-of-one-id", _payload("two deployments of one id", two, refused("schema"))


def _payload(what: str, value: Json, expect: Json) -> Json:
    return {"what": what, "payload": compact(value), "expect": expect}


_WRONG: dict[str, tuple[str, Any, str, str]] = {
    "type-other": ("_type", "fairlead.command", "type", "another document"),
    "type-missing": ("_type", ..., "type", "no _type"),
    "v-2": ("v", 2, "type", "a version that is not known"),
    "v-true": ("v", True, "type", "true is not 1"),
    "v-float": ("v", 1.5, "type", "1.5 is not 1"),
    "unknown-field": ("more", 1, "schema", "an unknown field (A28)"),
    "sequence-missing": ("sequence", ..., "schema", "a missing field"),
    "sequence-zero": ("sequence", 0, "schema", "sequences start at 1"),
    "sequence-true": ("sequence", True, "schema", "a boolean is no integer (A24)"),
    "sequence-text": ("sequence", "57", "schema", "a text is no integer"),
    "fleet-upper": ("fleet", "Acme", "schema", "ids have no upper case"),
    "group-slash": ("group", "a/b", "schema", "ids have no slash"),
    "issued-offset": ("issued", "2026-11-23T06:00:00+00:00", "schema", "times end in Z"),
    "issued-fraction": ("issued", "2026-11-23T06:00:00.0Z", "schema", "times have whole seconds"),
    "expires-first": ("expires", "2026-11-23T05:00:00Z", "schema", "expires before it was issued"),
    "state-unknown": ("deployments.0.state", "paused", "schema", "an unknown state (A28)"),
    "share-above": ("deployments.0.share_bp", 10_001, "schema", "more than everybody"),
    "share-float": ("deployments.0.share_bp", 5.5, "schema", "shares are whole basis points"),
    "salt-short": ("deployments.0.salt", "6f2c", "schema", "a salt of less than 8 digits"),
    "salt-upper": ("deployments.0.salt", "6F2C9E01", "schema", "salts are lower case"),
    "counter-zero": ("deployments.0.counter", 0, "schema", "counters start at 1"),
    "version-space": ("deployments.0.version", "1 2", "schema", "a space in a version"),
    "targets-none": ("deployments.0.targets", [], "schema", "nothing to install"),
    "target-climbs": ("deployments.0.targets.0.path", "../x", "schema", "a path that climbs (B14)"),
    "target-absolute": ("deployments.0.targets.0.path", "/x", "schema", "an absolute path (B14)"),
    "target-sha-upper": ("deployments.0.targets.0.sha256", "AB" * 32, "schema", "digests are lower case"),
    "target-override": ("deployments.0.targets.0.unpacked_size", 1, "schema", "a field of the catalogue (A22)"),
    "install-override": ("deployments.0.install", {"exec": ["sh"]}, "schema", "a field of the catalogue (A22)"),
    "device-wildcard": ("deployments.0.devices", ["+"], "schema", "a device is named, never matched"),
    "fallback-missing": ("deployments.0.fallback", ..., "schema", "null is said, not left out"),
    "window-minute": ("deployments.0.window", {"start_min": 0, "end_min": 1_440}, "schema", "a day has 1440 minutes"),
    "probation-long": ("deployments.0.probation_s", 604_801, "schema", "more than a week"),
    "not-before-date": ("deployments.0.not_before", "2026-11-23", "schema", "a date is no time"),
}

INFO: Json = {
    "package": "my-service",
    "kind": "service",
    "version": "1.2.0",
    "counter": 12,
    "classes": ["aarch64"],
    "format": "tar.zst",
    "unpacked_size": 4_096,
    "unpacked_files": 3,
    "precursors": [],
    "requires": [],
    "install": {
        "exec": ["bin/serve", "--port", "${PORT}"],
        "stop_s": 10,
        "check": {
            "kind": "http",
            "target": "http://127.0.0.1:${PORT}/health",
            "interval_s": 5,
            "timeout_s": 3,
            "failures": 3,
        },
    },
    "text": "The first release.",
}


def targetinfo_cases() -> Iterator[tuple[str, Json]]:
    done = ok(package="my-service", counter=12)
    yield "good", {"what": "a service", "custom": INFO, "expect": done}
    plain = INFO | {"kind": "files", "install": {"exec": [], "stop_s": 10, "check": None}}
    yield "good-files", {"what": "files only", "custom": plain, "expect": done}
    rows: dict[str, tuple[str, Any, str]] = {
        "kind-unknown": ("kind", "script", "an unknown kind (A28)"),
        "format-unknown": ("format", "zip", "an unknown format (A28)"),
        "classes-none": ("classes", [], "for no hardware at all"),
        "classes-twice": ("classes", ["aarch64", "aarch64"], "a class twice"),
        "counter-true": ("counter", True, "a boolean is no integer"),
        "size-negative": ("unpacked_size", -1, "a negative size"),
        "exec-text": ("install.exec", "bin/serve", "a command line; only argument vectors exist (B14)"),
        "exec-nul": ("install.exec", ["a\u0000b"], "a NUL in an argument (B14)"),
        "check-kind": ("install.check.kind", "tcp", "an unknown check"),
        "check-interval": ("install.check.interval_s", 0, "checks without a pause"),
        "stop-zero": ("install.stop_s", 0, "no time to stop"),
        "env": ("install.env", {}, "an unknown field"),
        "text-missing": ("text", ..., "a missing field"),
    }
    for name, (path, new, what) in rows.items():
        yield name, {"what": what, "custom": _changed(INFO, path, new), "expect": refused("schema")}


def match_cases() -> Iterator[tuple[str, Json]]:
    """Rules 9 to 13: one deployment against the catalogue, for a device of one class."""
    path = "my-service/1.2.0/aarch64.tar.zst"
    entry: Json = {"length": 123, "sha256": "ab" * 32, "custom": INFO}
    base: Json = {"deployment": DEPLOYMENT, "catalogue": {path: entry}, "floors": {}, "class": "aarch64"}

    def case(what: str, expect: Json, **more: Any) -> Json:
        return {"what": what} | copy.deepcopy(base) | more | {"expect": expect}

    done = ok(path=path)
    yield "good", case("catalogue and manifest agree", done)
    yield "good-floor", case("at the floor itself", done, floors={"my-service": 12})
    yield "unlisted", case("not in the catalogue, or not any more (A19)", refused("unlisted"), catalogue={})
    for name, more in {"length": {"length": 124}, "sha256": {"sha256": "cd" * 32}}.items():
        what = f"another {name} than the catalogue says (A14)"
        yield f"other-{name}", case(what, refused("mismatch"), catalogue={path: entry | more})
    for name, new in {"package": "other", "version": "1.3.0", "counter": 13}.items():
        what = f"another {name} than the catalogue says (A14)"
        other = {path: entry | {"custom": INFO | {name: new}}}
        yield f"other-{name}", case(what, refused("mismatch"), catalogue=other)
    yield "class", case("for other hardware (A17)", refused("class"), **{"class": "x86_64"})
    yield "floor", case("below the floor (A18)", refused("floor"), floors={"my-service": 13})
    recalled = DEPLOYMENT | {"state": "recalled"}
    what = "below the floor, recalled or not (A18)"
    yield "floor-recalled", case(what, refused("floor"), floors={"my-service": 13}, deployment=recalled)
    wanted = [{"package": "runtime", "sha256": "ef" * 32}]
    needs = {path: entry | {"custom": INFO | {"requires": wanted}}}
    yield "requires", case("a dependency that is not listed (A29)", refused("requires"), catalogue=needs)
    runtime = INFO | {"package": "runtime", "version": "1", "counter": 1}
    both = needs | {"runtime/1/aarch64.tar.zst": {"length": 1, "sha256": "ef" * 32, "custom": runtime}}
    yield "good-requires", case("a dependency that is listed", done, catalogue=both)
    what = "the catalogue describes it in words that are not known (A28)"
    strange = {path: entry | {"custom": INFO | {"kind": "script"}}}
    yield "unknown-kind", case(what, refused("schema"), catalogue=strange)


def membership_cases() -> Iterator[tuple[str, Json]]:
    salts = ("6f2c9e01", "00000000", "ffffffffffffffff", "0123456789abcdef" * 4)
    devices = ("node-1", "node-2", "node-3", "a", "0", "pump_7", "x" * 64)
    for number, salt in enumerate(salts, 1):
        rows = []
        for device in devices:
            digest = sha256(f"{salt}|{device}".encode())
            rows.append({"device": device, "sha256": digest, "bucket": bucket(salt, device)})
        what = "a device takes part where its bucket is below share_bp, or where it is named"
        yield f"salt-{number}", {"what": what, "salt": salt, "devices": list(devices), "expect": ok(buckets=rows)}
    edges = [("node-1", [], 5_000), ("node-1", ["node-1"], 0), ("node-1", ["node-2"], 0), ("node-1", [], 10_000)]
    place = bucket("6f2c9e01", "node-1")
    edges += [("node-1", [], place), ("node-1", [], place + 1)]
    for number, (device, named, share) in enumerate(edges, 1):
        part = device in named or place < share
        given = {"salt": "6f2c9e01", "device": device, "devices": named, "share_bp": share}
        yield (
            f"takes-part-{number}",
            {"what": f"bucket {place}, share {share}"} | given | {"expect": ok(takes_part=part)},
        )
