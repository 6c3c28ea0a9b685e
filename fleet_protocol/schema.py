"""Documents from bytes, validated by pydantic against the very dataclasses that build them."""

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fleet_protocol import PROTOCOL_VERSION, strict_json
from fleet_protocol.errors import ProtocolError
from fleet_protocol.payload import Document

D = TypeVar("D", bound=Document)
T = TypeVar("T")


def from_payload(kind: type[D], data: bytes, *, max_size: int) -> D:
    """Read a document of exactly this kind.

    Raises ProtocolError `size`, `parse`, `type` (another `_type` or `v`) or `schema`. Peers' bytes are
    parsed once; validation sees what the strict parser understood.
    """
    value = strict_json.loads(data, max_size=max_size)
    if not isinstance(value, dict):
        raise ProtocolError("schema", "the payload is not an object")
    found = value.pop("_type", None), value.pop("v", None)
    if found != (kind.TYPE, PROTOCOL_VERSION) or type(found[1]) is not int:
        raise ProtocolError("type", f"wanted _type {kind.TYPE}, v {PROTOCOL_VERSION}")
    return from_value(kind, value)


def from_value(kind: type[T], value: Any) -> T:
    """Validate an already parsed JSON value strictly, or raise ProtocolError `schema`."""
    key: Any = kind
    adapter: TypeAdapter[T] = _adapter(key)
    try:
        validated: T = adapter.validate_json(strict_json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ProtocolError("schema", f"{place}: {first['msg']}"[:300]) from None
    return validated


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
