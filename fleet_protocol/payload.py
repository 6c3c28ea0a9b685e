"""Documents to bytes; needs only the standard library."""

from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from fleet_protocol import PROTOCOL_VERSION, strict_json


class Document(Protocol):
    """A dataclass that travels with `_type` and `v` in front."""

    TYPE: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]


def to_payload(document: Document) -> bytes:
    """The document's canonical bytes, `_type` and `v` included; equal documents give equal bytes."""
    return strict_json.dumps({"_type": document.TYPE, "v": PROTOCOL_VERSION, **asdict(document)})
