"""Checks that a document's constructor makes, so that no process can hold an impossible one."""

from collections.abc import Sequence

from fleet_protocol.errors import ProtocolError


def check_range(value: int, low: int, high: int, what: str) -> None:
    """Raise ProtocolError `schema` unless `value` is an integer (not a boolean) from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        raise ProtocolError("schema", f"{what} must be an integer from {low} to {high}")


def check_count(items: Sequence[object], most: int, what: str, *, least: int = 0) -> None:
    """Raise ProtocolError `schema` unless there are `least` to `most` items."""
    if not least <= len(items) <= most:
        raise ProtocolError("schema", f"{what} must hold {least} to {most} items")


def check_text(text: str, most: int, what: str) -> None:
    """Raise ProtocolError `schema` for a text over `most` characters or with a NUL."""
    if len(text) > most or "\0" in text:
        raise ProtocolError("schema", f"{what} must be at most {most} characters without NUL")


def check_distinct(items: Sequence[str], what: str) -> None:
    """Raise ProtocolError `schema` where one item stands twice."""
    if len(set(items)) != len(items):
        raise ProtocolError("schema", f"{what} names one thing twice")
