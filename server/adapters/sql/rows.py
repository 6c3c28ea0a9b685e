"""Domain objects to rows and back, one shape per table.

A row is read through pydantic against the domain's own dataclass: what was edited by hand is either exactly a value
that the domain allows, or PolicyError `database` that names the table, the row and the column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from typing import Any, Final, Generic, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Column, Table

from fleet_protocol.errors import FleetError, PolicyError
from fleet_protocol.ids import shown
from server.adapters.sql import schema
from server.domain.fleet import AttemptSeen, AuditEntry, Device, Group
from server.domain.job import Job
from server.domain.rollout import Rollout
from server.ports import Reading

T = TypeVar("T")


@dataclass(frozen=True)
class Shape(Generic[T]):
    """How one kind of domain object lies in one table.

    `key` names the columns by which a person finds the row, `nested` the fields that are stored as JSON.
    """

    kind: type[T]
    table: Table
    key: tuple[str, ...]
    nested: frozenset[str] = frozenset()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The kind's fields, which are the names of its columns."""
        return tuple(field.name for field in fields(self.kind))  # type: ignore[arg-type]  # T is always a dataclass

    @cached_property
    def columns(self) -> tuple[Column[Any], ...]:
        """The columns to select, in the order of `names`."""
        return tuple(self.table.c[name] for name in self.names)

    @cached_property
    def _whole(self) -> TypeAdapter[T]:
        return TypeAdapter(self.kind)

    @cached_property
    def _parts(self) -> Mapping[str, TypeAdapter[Any]]:
        hints = get_type_hints(self.kind)
        return {name: TypeAdapter(hints[name]) for name in self.nested}

    def encode(self, value: T) -> dict[str, Any]:
        """The row of a domain object."""
        row = {name: _scalar(getattr(value, name)) for name in self.names}
        for name in self.nested:
            if row[name] is not None:
                row[name] = self._parts[name].dump_json(row[name]).decode()
        return row

    def decode(self, row: Sequence[Any]) -> T:
        """The domain object of a row of `columns`, or PolicyError `database`."""
        values = dict(zip(self.names, row, strict=True))
        place = ""
        try:
            for place, adapter in self._parts.items():
                if values[place] is not None:
                    values[place] = adapter.validate_json(_text(values[place]))
            place = ""
            return self._whole.validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            path = ".".join(str(part) for part in (*([place] if place else []), *first["loc"]))
            raise self.unreadable(row, f"{path}: {first['msg']}") from None
        except (FleetError, ValueError) as error:
            raise self.unreadable(row, f"{place}: {error}" if place else str(error)) from None

    def unreadable(self, row: Sequence[Any], detail: str) -> PolicyError:
        """The error that names this row."""
        values = dict(zip(self.names, row, strict=True))
        key = ", ".join(f"{name} {shown(values[name])}" for name in self.key)
        return PolicyError("database", f"table {self.table.name}, row {key}: {detail[:300]}")


def _scalar(value: Any) -> Any:
    if type(value) is bool:
        return int(value)
    return value.value if isinstance(value, Enum) else value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004 - what is wrong is a stored value, not a call
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What one retained topic must hold."""

    topic: str
    payload: bytes


DEVICES: Final = Shape(Device, schema.DEVICES, ("id",), frozenset({"public_key", "installed", "attacks"}))
GROUPS: Final = Shape(Group, schema.GROUPS, ("name",))
JOBS: Final = Shape(Job, schema.JOBS, ("id",), frozenset({"targets", "sources", "fallback", "window"}))
ROLLOUTS: Final = Shape(Rollout, schema.ROLLOUTS, ("id",), frozenset({"policy", "shares"}))
ATTEMPTS: Final = Shape(AttemptSeen, schema.ATTEMPTS, ("deployment", "device"))
READINGS: Final = Shape(Reading, schema.READINGS, ("device", "kind"))
DOCUMENTS: Final = Shape(Document, schema.DOCUMENTS, ("topic",))
AUDIT: Final = Shape(AuditEntry, schema.AUDIT, ("at_s", "who"))
