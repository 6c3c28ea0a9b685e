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
    forced = _changed(MANIFEST, "deployments.0", DEPLOYMENT | {"irreversible": True})
    yield "good-irreversible", _payload("an optional member: no way back is needed", forced, summary)
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
    "irreversible-text": ("deployments.0.irreversible", "yes", "schema", "a text is no boolean"),
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


UNIT: Json = {"name": "my-service.service", "file": "units/my.service", "scope": "system", "enable": True}
DRIVER: Json = {"module": "my_driver", "kernels": ["6.1.0-30-arm64", "6.1.0-31-arm64"], "load": True}
PACKAGE: Json = {
    "name": "my-tool",
    "version": "1:2.0-1~rc1",
    "architecture": "arm64",
    "sha256": "ab" * 32,
    "file": None,
}
_NOTHING_RUNS: Json = {"exec": [], "stop_s": 10, "check": None}


def _installing(kind: str, **members: Any) -> Json:
    return INFO | {"kind": kind, "install": _NOTHING_RUNS | members}


def _optional_cases() -> Iterator[tuple[str, Json]]:
    """Members that may be left out."""
    done = ok(package="my-service", counter=12)
    yield "good-part", {"what": "one part of a release", "custom": INFO | {"part": "web"}, "expect": done}
    good = {
        "unit": _installing("service", unit=UNIT),
        "driver": _installing("driver", driver=DRIVER),
        "packages": _installing("package", packages=[PACKAGE, PACKAGE | {"name": "other", "file": "a/b.deb"}]),
        "dependencies": _installing("package", packages=[PACKAGE], dependencies="repository"),
    }
    for name, custom in good.items():
        yield f"good-{name}", {"what": f"an artifact with {name}", "custom": custom, "expect": done}
    rows: dict[str, tuple[Json, str]] = {
        "part-upper": (INFO | {"part": "Web"}, "a part's name is an id"),
        "unit-path": (_installing("service", unit=UNIT | {"name": "../my.service"}), "a unit's name is no path (B14)"),
        "unit-socket": (_installing("service", unit=UNIT | {"name": "my.socket"}), "a unit that is no service"),
        "unit-file": (_installing("service", unit=UNIT | {"file": "../my.service"}), "a file outside (B6)"),
        "unit-scope": (_installing("service", unit=UNIT | {"scope": "root"}), "an unknown scope (A28)"),
        "unit-null": (_installing("service", unit=UNIT | {"enable": None}), "enable is true or false"),
        "driver-dash": (_installing("driver", driver=DRIVER | {"module": "my-driver"}), "modules are spelt with _"),
        "driver-kernel": (_installing("driver", driver=DRIVER | {"kernels": ["../x"]}), "a kernel is no path (B14)"),
        "driver-no-kernel": (_installing("driver", driver=DRIVER | {"kernels": []}), "built for no kernel"),
        "packages-twice": (_installing("package", packages=[PACKAGE, PACKAGE]), "one package twice"),
        "package-option": (_installing("package", packages=[PACKAGE | {"name": "-i"}]), "no option (B14)"),
        "package-version": (_installing("package", packages=[PACKAGE | {"version": "2.0 /x"}]), "no argument (B14)"),
        "package-file": (_installing("package", packages=[PACKAGE | {"file": "/x.deb"}]), "a file outside (B6)"),
        "dependencies": (_installing("package", dependencies="any"), "an unknown word (A28)"),
    }
    for name, (custom, what) in rows.items():
        yield name, {"what": what, "custom": custom, "expect": refused("schema")}


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
    yield from _optional_cases()


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
    yield from _part_cases(base)
    what = "the catalogue describes it in words that are not known (A28)"
    strange = {path: entry | {"custom": INFO | {"kind": "script"}}}
    yield "unknown-kind", case(what, refused("schema"), catalogue=strange)


def _part_cases(base: Json) -> Iterator[tuple[str, Json]]:
    """Several artifacts of one release for one class."""
    paths = ["my-service/1.2.0/driver/aarch64.tar.zst", "my-service/1.2.0/web/aarch64.tar.zst"]
    targets = [{"path": path, "length": 123, "sha256": "ab" * 32} for path in paths]

    def case(what: str, parts: list[str], expect: Json) -> Json:
        infos = [INFO | ({"part": part} if part else {}) for part in parts]
        listed = {
            path: {"length": 123, "sha256": "ab" * 32, "custom": info} for path, info in zip(paths, infos, strict=True)
        }
        return {"what": what} | base | {"deployment": DEPLOYMENT | {"targets": targets}, "catalogue": listed} | expect

    yield "good-parts", case("two parts of one release", ["driver", "web"], {"expect": ok(paths=paths)})
    refusal = {"expect": refused("mismatch")}
    yield "parts-same", case("two artifacts for one class under one name", ["web", "web"], refusal)
    yield "parts-unnamed", case("two artifacts for one class, one without a name", ["", "web"], refusal)
    yield "parts-none", case("two artifacts for one class without names", ["", ""], refusal)


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
