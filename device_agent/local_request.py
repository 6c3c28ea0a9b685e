"""One request of the local HTTP and its response, as the loop sees them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was addressed to this device, bounded, and carries the token where it must."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """HTTP status and one JSON object."""

    status: int
    value: Mapping[str, Any]
