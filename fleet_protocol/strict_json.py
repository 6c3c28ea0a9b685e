"""JSON as two parsers can not disagree about it (RFC 8259 and RFC 7493, narrowed)."""

import json
import math
import re
from typing import Any, Final, NoReturn

from fleet_protocol import limits
from fleet_protocol.errors import ProtocolError

_BOM: Final = b"\xef\xbb\xbf"
_BRACKETS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A string, closed or cut off by the end, or a bracket. Possessive, and never begun twice in one string, so that
a hostile document costs time and memory in proportion to its size."""


def loads(data: bytes, *, max_size: int, max_string: int = limits.JSON_STRING) -> Any:
    """Return the value, or raise ProtocolError `size` or `parse`.

    The size is checked before anything is read. Refused are a byte order mark, bytes that
    are not UTF-8, duplicate keys, NaN and infinities, lone surrogates, integers beyond 2^53-1,
    numbers that overflow, strings over `max_string` characters and nesting deeper than 16.
    """
    if len(data) > max_size:
        raise ProtocolError("size", f"{len(data)} bytes, at most {max_size} are allowed")
    if data.startswith(_BOM):
        raise ProtocolError("parse", "byte order mark")
    _check_depth(data)
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError("parse", str(error)[:200]) from None
    if len(data) > max_string or b"\\u" in data:
        _check_strings(value, max_string)  # else none can be too long, nor hold what only an escape can write
    return value


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON with sorted keys: equal values give equal bytes. NaN raises ValueError."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > limits.JSON_INTEGER:
        raise ValueError("integer out of bounds")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("number out of bounds")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_number
)


def _check_depth(data: bytes) -> None:
    """Count brackets outside strings before the recursive parser sees them."""
    if data.count(b"[") + data.count(b"{") <= limits.JSON_DEPTH:
        return
    depth = 0
    for token in _BRACKETS.finditer(data):
        if token[0] in (b"[", b"{"):
            depth += 1
            if depth > limits.JSON_DEPTH:
                raise ProtocolError("parse", f"nested deeper than {limits.JSON_DEPTH}")
        elif token[0] in (b"]", b"}"):
            depth -= 1


def _check_strings(value: Any, most: int) -> None:
    if isinstance(value, str):
        _check_string(value, most)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item, most)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_string(key, most)
            _check_strings(item, most)


def _check_string(text: str, most: int) -> None:
    if len(text) > most:
        raise ProtocolError("parse", "string too long")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ProtocolError("parse", "lone surrogate") from None
