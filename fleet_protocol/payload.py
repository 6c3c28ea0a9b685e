"""Documents to bytes; needs only the standard library."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, ClassVar, Protocol

from fleet_protocol import PROTOCOL_VERSION, strict_json


class Document(Protocol):
    """A dataclass that travels with `_type` and `v` in front."""

    TYPE: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


def to_payload(document: Document) -> bytes:
    """The document's canonical bytes, `_type` and `v` included; equal documents give equal bytes."""
    return strict_json.dumps({"_type": document.TYPE, "v": PROTOCOL_VERSION, **to_value(document)})


def to_value(value: Any) -> Any:
    """A document's JSON value. A member that has a default is left out where it has that value.

    So members can be added: a document that says nothing new has the bytes that it always had.
    """
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: (field.default, getattr(value, field.name)) for field in fields(value)}
        return {name: to_value(one) for name, (default, one) in found.items() if default is MISSING or one != default}
    if isinstance(value, (tuple, list)):
        return [to_value(one) for one in value]
    return dict(value) if isinstance(value, Mapping) else value
