"""Vectors of texts: strict JSON, topics, times, names in archives."""

from collections.abc import Iterator
from typing import Any

from tests.vectors.primitives import Json, b64, ok, refused


def strict_json_cases() -> Iterator[tuple[str, Json]]:
    good: dict[str, tuple[bytes, Any, str]] = {
        "object": (b'{"b":1,"a":[true,null,"x"]}', {"a": [True, None, "x"], "b": 1}, "anything plain"),
        "spaces": (b' { "a" : 1 } \n', {"a": 1}, "spaces are allowed"),
        "integer-bounds": (b"[9007199254740991,-9007199254740991]", [2**53 - 1, 1 - 2**53], "2^53-1 either way"),
        "deepest": (b"[" * 16 + b"]" * 16, [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]], "sixteen levels"),
        "brackets-in-text": (b'["' + b"[" * 40 + b'"]', ["[" * 40], "brackets in a text are not depth"),
        "escapes": (b'"\\u00e4\\n\\ud83d\\ude00"', "ä\n😀", "a surrogate pair is one character"),
    }
    for name, (data, value, what) in good.items():
        yield name, _json(what, data, ok(value=value))
    bad: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "nothing"),
        "duplicate-key": (b'{"a":1,"a":1}', "a key twice, even with one value"),
        "duplicate-key-escaped": (b'{"a":1,"\\u0061":2}', "a key twice, spelt in two ways"),
        "duplicate-key-deep": (b'[{"x":{"a":1,"a":2}}]', "a key twice, deep inside"),
        "nan": (b"[NaN]", "NaN"),
        "infinity": (b"[-Infinity]", "infinity"),
        "overflow": (b"1e400", "a number that overflows"),
        "integer-large": (b"9007199254740992", "2^53"),
        "integer-small": (b"-9007199254740992", "-2^53"),
        "leading-zero": (b"[01]", "a leading zero"),
        "bom": (b"\xef\xbb\xbf{}", "a byte order mark"),
        "utf16": (b"\xff\xfe{\x00}\x00", "UTF-16"),
        "not-utf8": (b'"\xff"', "bytes that are not UTF-8"),
        "lone-surrogate": (b'"\\ud800"', "half of a surrogate pair"),
        "lone-surrogate-key": (b'{"\\udc00":1}', "half of a surrogate pair in a key"),
        "too-deep": (b"[" * 17 + b"]" * 17, "seventeen levels"),
        "trailing-comma": (b"[1,]", "a comma too many"),
        "two-values": (b"{} {}", "two values"),
        "single-quotes": (b"{'a':1}", "single quotes"),
        "comment": (b"{}//", "a comment"),
        "line-break-in-text": (b'"a\nb"', "a bare line break in a text"),
        "cut": (b'{"a":', "cut off"),
    }
    for name, (data, what) in bad.items():
        yield name, _json(what, data, refused("parse"))
    yield "too-large", _json("larger than allowed, whatever it is", b"[1,2,3]", refused("size"), max_size=6)


def _json(what: str, data: bytes, expect: Json, max_size: int = 1_000) -> Json:
    try:
        given: Json = {"text": data.decode()}
    except UnicodeDecodeError:
        given = {"base64": b64(data)}
    return {"what": what, **given, "max_size": max_size, "expect": expect}


def topic_cases() -> Iterator[tuple[str, Json]]:
    rows: dict[str, tuple[str, str, Json, int, bool]] = {
        "root": ("trust/root/3", "root", {"version": "3"}, 1, True),
        "timestamp": ("trust/timestamp", "timestamp", {}, 1, True),
        "snapshot": ("trust/snapshot/12", "snapshot", {"version": "12"}, 1, True),
        "targets": ("trust/targets/7", "targets", {"version": "7"}, 1, True),
        "manifest": ("groups/line-1/manifest", "manifest", {"group": "line-1"}, 1, True),
        "assignment": ("devices/node-1/assignment", "assignment", {"device": "node-1"}, 1, True),
        "command": ("devices/node-1/command", "command", {"device": "node-1"}, 1, False),
        "availability": ("devices/node-1/availability", "availability", {"device": "node-1"}, 1, True),
        "state": ("devices/node-1/state", "state", {"device": "node-1"}, 1, True),
        "heartbeat": ("devices/node-1/heartbeat", "heartbeat", {"device": "node-1"}, 0, False),
        "telemetry": ("devices/node-1/telemetry", "telemetry", {"device": "node-1"}, 0, False),
        "health": ("devices/node-1/health", "health", {"device": "node-1"}, 1, False),
        "report": ("devices/node-1/report", "report", {"device": "node-1"}, 1, False),
        "reply": ("devices/node-1/reply", "reply", {"device": "node-1"}, 1, False),
    }
    for name, (tail, kind, values, qos, retain) in rows.items():
        expect = ok(type=kind, values=values, qos=qos, retain=retain)
        yield name, {"what": f"a {kind} topic", "prefix": "fleet/v1", "topic": f"fleet/v1/{tail}", "expect": expect}
    prefix = {"what": "another prefix", "prefix": "site-7/fleet", "topic": "site-7/fleet/trust/timestamp"}
    yield "other-prefix", prefix | {"expect": ok(type="timestamp", values={}, qos=1, retain=True)}
    bad = {
        "foreign": "homeassistant/status",
        "wrong-prefix": "fleet/v2/trust/timestamp",
        "upper": "fleet/v1/devices/Node-1/state",
        "wildcard": "fleet/v1/devices/+/state",
        "all": "fleet/v1/#",
        "empty-level": "fleet/v1/devices//state",
        "too-short": "fleet/v1/devices/node-1",
        "too-long": "fleet/v1/devices/node-1/state/x",
        "root-zero": "fleet/v1/trust/root/0",
        "root-leading-zero": "fleet/v1/trust/root/01",
        "root-word": "fleet/v1/trust/root/latest",
        "system": "$SYS/broker/version",
        "line-break": "fleet/v1/devices/node-1\n/state",
        "long-id": f"fleet/v1/devices/{'x' * 65}/state",
        "dots": "fleet/v1/devices/../state",
    }
    for name, topic in bad.items():
        yield (
            f"bad-{name}",
            {
                "what": "not a Fairlead topic",
                "prefix": "fleet/v1",
                "topic": topic,
                "expect": refused("schema"),
            },
        )


def timestamp_cases() -> Iterator[tuple[str, Json]]:
    good = {
        "epoch": ("1970-01-01T00:00:00Z", 0),
        "example": ("2026-11-23T06:00:00Z", 1_795_413_600),
        "leap-day": ("2028-02-29T23:59:59Z", 1_835_481_599),
        "last": ("9999-12-31T23:59:59Z", 253_402_300_799),
    }
    for name, (text, epoch_s) in good.items():
        yield name, {"what": "whole seconds, UTC", "time": text, "expect": ok(epoch_s=epoch_s)}
    bad = {
        "offset": "2026-11-23T06:00:00+00:00",
        "fraction": "2026-11-23T06:00:00.000Z",
        "small-z": "2026-11-23T06:00:00z",
        "space": "2026-11-23 06:00:00Z",
        "no-zone": "2026-11-23T06:00:00",
        "no-seconds": "2026-11-23T06:00Z",
        "leap-second": "2026-12-31T23:59:60Z",
        "no-leap-year": "2026-02-29T00:00:00Z",
        "month-13": "2026-13-01T00:00:00Z",
        "hour-24": "2026-11-23T24:00:00Z",
        "other-digits": "\u0662\u0660\u0662\u0666-11-23T06:00:00Z",
        "line-break": "2026-11-23T06:00:00Z\n",
        "empty": "",
    }
    for name, text in bad.items():
        yield f"bad-{name}", {"what": "another spelling", "time": text, "expect": refused("schema")}


def archive_cases() -> Iterator[tuple[str, Json]]:
    def members(*names: str) -> list[Json]:
        return [{"name": name.rstrip("/"), "directory": name.endswith("/")} for name in names]

    good = {
        "tree": members("bin/", "bin/serve", "data.txt"),
        "odd-but-plain": members(".hidden", "__init__.py", "a b", "...", "ä"),
        "empty-directory": members("var/"),
    }
    for name, rows in good.items():
        yield name, {"what": "plain names", "members": rows, "expect": ok(count=len(rows))}
    bad: dict[str, tuple[list[Json], str]] = {
        "climbs": (members("../x"), "a name that climbs"),
        "climbs-inside": (members("a/", "a/../../x"), "a name that climbs later"),
        "absolute": (members("/etc/passwd"), "an absolute name"),
        "dot": (members("./x"), "a dot"),
        "empty-part": (members("a/", "a//b"), "an empty part"),
        "backslash": (members("a\\b"), "a backslash"),
        "control": (members("a\u0007b"), "a control character"),
        "right-to-left": (members("a\u202eb"), "a character that turns text around"),
        "not-nfc": (members("e\u0301"), "not in Unicode normal form C"),
        "twice": (members("a", "a"), "a name twice"),
        "case-twins": (members("readme", "README"), "names that differ in case only"),
        "unicode-twins": (members("s", "\u017f"), "names that some file systems take for one"),
        "file-as-directory": (members("a", "a/b"), "a file that holds a file"),
        "directory-missing": (members("a/b"), "a member before its directory"),
        "part-long": (members("x" * 256), "a part of more than 255 bytes"),
    }
    for name, (rows, what) in bad.items():
        yield f"bad-{name}", {"what": what, "members": rows, "expect": refused("archive")}
