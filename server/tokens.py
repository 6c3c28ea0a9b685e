"""What a request may say to be let in."""

from dataclasses import dataclass
from typing import Final

API: Final = "token"
"""The file of the token that may do everything."""
ENROL: Final = "enrol-token"
"""The file of the token that may enrol devices and nothing else: it goes to devices, where others may find it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One server's two tokens, which are never the same."""

    api: str
    enrol: str
