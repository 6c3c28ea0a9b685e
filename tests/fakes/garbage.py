"""What no part of Fairlead ever says, for topics that somebody else can write to."""

from typing import Final

GARBAGE: Final = {
    "nothing": b"",
    "a megabyte": bytes(1024 * 1024),
    "bytes that are no text": b"\xff\xfe\x00bad",
    "a key twice": b'{"a":1,"a":2}',
    "not a number": b'{"time":NaN}',
    "infinity": b'{"time":-Infinity}',
    "an array": b"[1,2,3]",
    "a string": b'"text"',
    "a number": b"42",
    "null": b"null",
    "true": b"true",
    "too deep": b"[" * 5_000 + b"]" * 5_000,
    "a nested reading": b'{"time":1,"cpu":{"a":[1]}}',
    "a float beyond all floats": b'{"time":1e400}',
    "an integer of sixty digits": b'{"time":' + b"9" * 60 + b"}",
    "a byte order mark": b'\xef\xbb\xbf{"time":1}',
    "half a surrogate": b'{"a":"\\ud800"}',
    "an unknown verdict": b'{"verdict":"splendid","checks":[]}',
    "checks that are no list": b'{"verdict":"ok","checks":{"a":1}}',
    "an envelope of nothing": b'{"payload":"!!","payloadType":"x","signatures":[]}',
    "an unsigned manifest": b'{"payload":"e30=","payloadType":"application/vnd.fairlead.manifest.v1+json",'
    b'"signatures":[{"keyid":"a","sig":"AA=="}]}',
    "an unsigned report": b'{"payload":"e30=","payloadType":"application/vnd.fairlead.report.v1+json",'
    b'"signatures":[{"keyid":"a","sig":"AA=="}]}',
    "the wrong letters": b"ONLINE",
    "one byte more": b"online\n",
    "a path for an id": b'{"id":"../../etc","code":null,"detail":"","result":{}}',
    "a reply of wrong types": b'{"id":"x","code":7,"detail":[],"result":"no"}',
    "an unfinished object": b'{"time":1',
    "more after the end": b'{"time":1}more',
}
"""Payloads by what is wrong with them; on some topics one or the other is only useless."""
