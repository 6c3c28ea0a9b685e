"""Vectors of signed documents: the encoding, envelopes, and the acceptance of a manifest."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from tests.vectors.primitives import Json, TestKey, b64, compact, envelope, ok, pae, refused, role, sha256

ONE, TWO, THREE, STRANGER = (TestKey(name) for name in ("deployment-1", "deployment-2", "deployment-3", "stranger"))
MANIFEST_TYPE = "application/vnd.fairlead.manifest.v1+json"
COMMAND_TYPE = "application/vnd.fairlead.command.v1+json"
NOW = "2026-11-24T00:00:00Z"

DEPLOYMENT: Json = {
    "id": "d-0192",
    "package": "my-service",
    "version": "1.2.0",
    "counter": 12,
    "targets": [{"path": "my-service/1.2.0/aarch64.tar.zst", "length": 123, "sha256": "ab" * 32}],
    "state": "active",
    "share_bp": 500,
    "salt": "6f2c9e01",
    "devices": ["node-1"],
    "fallback": {"version": "1.1.0", "counter": 11, "targets": []},
    "not_before": None,
    "window": None,
    "probation_s": 60,
    "sources": [{"sha256": "ab" * 32, "url": "https://example.org/my-service.tar.zst"}],
}
MANIFEST: Json = {
    "_type": "fairlead.manifest",
    "v": 1,
    "fleet": "acme",
    "group": "line-1",
    "sequence": 57,
    "root": 3,
    "issued": "2026-11-23T06:00:00Z",
    "expires": "2026-11-30T06:00:00Z",
    "deployments": [DEPLOYMENT],
}


def manifest(**changes: Any) -> bytes:
    """The example manifest's bytes, changed."""
    return compact(copy.deepcopy(MANIFEST) | changes).encode()


def pae_cases() -> Iterator[tuple[str, Json]]:
    rows = {
        "published-example": ("http://example.com/HelloWorld", b"hello world", "the example of the DSSE specification"),
        "empty": ("", b"", "empty type and empty payload: the lengths are there all the same"),
        "spaces": ("a b", b"c d", "spaces in type and payload cannot move the borders, because of the lengths"),
        "bytes": ("application/x", bytes(range(256)), "the payload is bytes, not text"),
        "unicode": ("ä/€", "ä€".encode(), "lengths count bytes of UTF-8, not characters"),
    }
    for name, (kind, payload, what) in rows.items():
        expect = ok(pae_base64=b64(pae(kind, payload)))
        yield name, {"what": what, "payload_type": kind, "payload_base64": b64(payload), "expect": expect}


def _case(what: str, text: Json | str, keys: Json, expect: Json, **more: Any) -> Json:
    shown = text if isinstance(text, str) else compact(text)
    base = {"what": what, "envelope": shown, "payload_type": MANIFEST_TYPE, "max_size": 262_144, "role": keys}
    return base | more | {"expect": expect}


def envelope_cases() -> Iterator[tuple[str, Json]]:
    payload = b'{"hello":"world"}'
    good = envelope(payload, MANIFEST_TYPE, ONE, TWO)
    three = role(2, ONE, TWO, THREE)
    seen = ok(payload_base64=b64(payload))
    yield "good-2-of-3", _case("two of three keys signed", good, three, seen)
    yield "good-1-of-1", _case("one key", envelope(payload, MANIFEST_TYPE, ONE), role(1, ONE), seen)
    stranger = envelope(payload, MANIFEST_TYPE, STRANGER, ONE, TWO)
    yield "good-with-stranger", _case("a signature by an unlisted key is ignored", stranger, three, seen)
    unnamed = copy.deepcopy(good)
    for row in unnamed["signatures"]:
        row["keyid"] = ""
    yield "good-without-key-ids", _case("a key id is a hint: without one, every key is tried", unnamed, three, seen)
    safe = envelope(b"\xfb\xff\xbf~~", MANIFEST_TYPE, ONE)
    safe["payload"] = safe["payload"].replace("+", "-").replace("/", "_")
    what = "base64 may use the URL-safe alphabet"
    yield "good-url-safe", _case(what, safe, role(1, ONE), ok(payload_base64=b64(b"\xfb\xff\xbf~~")))
    yield from _bad_signatures(payload, good, three)
    yield from _bad_forms(good, three)


def _bad_signatures(payload: bytes, good: Json, three: Json) -> Iterator[tuple[str, Json]]:
    changed = good | {"payload": b64(b'{"hello":"World"}')}
    yield "altered-payload", _case("one letter of the payload differs", changed, three, refused("signature"))
    other = envelope(payload, COMMAND_TYPE, ONE, TWO)
    yield "other-type", _case("a signed document of another type (A6)", other, three, refused("type"))
    moved = other | {"payloadType": MANIFEST_TYPE}
    yield "type-moved", _case("the type is signed, too", moved, three, refused("signature"))
    one = envelope(payload, MANIFEST_TYPE, ONE)
    yield "below-threshold", _case("one of two (A2)", one, three, refused("threshold"))
    twice = envelope(payload, MANIFEST_TYPE, ONE, ONE)
    yield "counted-twice", _case("one key signed twice: one vote (A3)", twice, three, refused("threshold"))
    nobody = envelope(payload, MANIFEST_TYPE, STRANGER)
    yield "stranger", _case("nobody who is listed signed", nobody, three, refused("signature"))
    yield "no-signatures", _case("no signature", good | {"signatures": []}, three, refused("signature"))
    bare = good | {"signatures": [{"keyid": ONE.keyid, "sig": b64(ONE.sign(payload))}]}
    yield "bare-payload-signed", _case("the payload was signed, not its PAE", bare, role(1, ONE), refused("signature"))
    swapped = copy.deepcopy(good)
    swapped["signatures"][0]["keyid"] = THREE.keyid
    swapped["signatures"].pop()
    what = "a valid signature under another listed key's id"
    yield "key-id-swapped", _case(what, swapped, role(1, ONE, THREE), refused("signature"))
    twin = role(2, ONE)
    twin["keys"]["f" * 64] = ONE.tuf
    yield "one-key-two-ids", _case("one public key under two ids (A4)", twice, twin, refused("threshold"))
    upper = role(2, ONE)
    upper["keys"]["f" * 64] = ONE.tuf | {"keyval": {"public": ONE.public.upper()}}
    yield "one-key-two-spellings", _case("the same in upper case (A4)", twice, upper, refused("threshold"))
    for name, threshold in (("0", 0), ("negative", -1), ("boolean", True), ("string", "1"), ("too-high", 4)):
        keys = role(threshold, ONE, TWO, THREE)
        yield f"threshold-{name}", _case("an impossible threshold (A5)", good, keys, refused("root"))


def _bad_forms(good: Json, three: Json) -> Iterator[tuple[str, Json]]:
    text = compact(good)
    rows: dict[str, tuple[str, str, str]] = {
        "not-json": ("hello", "parse", "not JSON"),
        "duplicate-key": (text[:-1] + ',"payload":""}', "parse", "a key twice"),
        "extra-member": (text[:-1] + ',"more":1}', "envelope", "a member that DSSE does not have"),
        "array": (f"[{text}]", "envelope", "not an object"),
        "payload-missing": (compact({k: v for k, v in good.items() if k != "payload"}), "envelope", "no payload"),
        "base64-space": (text.replace('"payload":"', '"payload":" '), "envelope", "a space in base64"),
        "hex-signature": (
            compact(good | {"signatures": [{"keyid": ONE.keyid, "sig": "zz"}]}),
            "envelope",
            "a signature that is not base64",
        ),
    }
    short = compact(good | {"payload": good["payload"].rstrip("=")})
    rows["unpadded"] = (short, "envelope", "base64 without its padding")
    odd = b64(b"ab")
    rows["stray-bits"] = (compact(good | {"payload": odd[:2] + "J="}), "envelope", "base64 with bits that say nothing")
    for name, (shown, code, what) in rows.items():
        yield name, _case(what, shown, three, refused(code))
    small = _case("larger than the topic allows, checked before anything is read", good, three, refused("size"))
    yield "too-large", small | {"max_size": len(text) - 1}
    many = good | {"signatures": good["signatures"] * 9}
    yield "too-many-signatures", _case("more than 16 signatures", many, three, refused("envelope"))


def acceptance_cases() -> Iterator[tuple[str, Json]]:
    """Rules 1 to 8 for a manifest: what a device has obeyed before, what it is offered, what it does."""
    first = manifest()
    base: Json = {"fleet": "acme", "group": "line-1", "now": NOW, "role": role(1, ONE), "obeyed": None}
    before = {"sequence": 57, "payload_sha256": sha256(first), "keys": [ONE.public]}

    def case(what: str, payload: bytes, expect: Json, key: TestKey = ONE, **more: Any) -> Json:
        text = compact(envelope(payload, MANIFEST_TYPE, key))
        return {"what": what, "envelope": text} | base | more | {"expect": expect}

    new, known = ok(sequence=57, known=False), ok(sequence=57, known=True)
    yield "first", case("the first manifest of a device", first, new)
    yield "again", case("redelivery is a no-op", first, known, obeyed=before)
    later = ok(sequence=58, known=False)
    yield "greater", case("a greater sequence is obeyed", manifest(sequence=58), later, obeyed=before)
    far = ok(sequence=9_000, known=False)
    yield "gap", case("sequences may leave gaps", manifest(sequence=9_000), far, obeyed=before)
    yield "lower", case("an older manifest (A8)", manifest(sequence=56), refused("replay"), obeyed=before)
    twin = manifest(deployments=[])
    yield "equal-other", case("one sequence, two payloads (A15)", twin, refused("equivocation"), obeyed=before)
    spaced = json.dumps(MANIFEST).encode()
    what = "the payload's bytes count, not what they mean (A15)"
    yield "equal-other-bytes", case(what, spaced, refused("equivocation"), obeyed=before)
    high = before | {"sequence": 2**53 - 1}
    what = "root replaced the key that pushed the sequence up: the floor is void (A11)"
    recovered = ok(sequence=57, known=False)
    yield "after-key-rotation", case(what, first, recovered, TWO, obeyed=high, role=role(1, TWO))
    yield "other-fleet", case("for another fleet (A16)", manifest(fleet="other"), refused("scope"))
    yield "other-group", case("for another group (A16)", manifest(group="line-2"), refused("scope"))
    yield "expired", case("past its expiry (A12)", first, refused("expired"), now="2026-12-01T00:00:00Z")
    yield "expired-now", case("expiry itself is too late", first, refused("expired"), now="2026-11-30T06:00:00Z")
    last = case("the second before expiry", first, new, now="2026-11-30T05:59:59Z")
    yield "not-yet-expired", last
    yield "unknown-key", case("not a key of the role", first, refused("signature"), STRANGER)
    what = "the signature is checked before the payload is parsed"
    yield "order-signature-before-parse", case(what, b"{", refused("signature"), STRANGER)
    what = "the payload is parsed before its scope is compared"
    yield "order-parse-before-scope", case(what, b'{"fleet":"other"', refused("parse"))
    what = "scope is compared before expiry"
    late = manifest(fleet="other", expires="2026-11-23T07:00:00Z")
    yield "order-scope-before-expiry", case(what, late, refused("scope"))
    what = "expiry is checked before the sequence"
    old = manifest(sequence=1, expires="2026-11-23T07:00:00Z")
    yield "order-expiry-before-sequence", case(what, old, refused("expired"), obeyed=before)
