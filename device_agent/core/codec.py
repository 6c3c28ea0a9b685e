"""The kernel's frozen dataclasses as JSON values and back, by their own type hints.

1. `from_json(type(x), to_json(x)) == x` for everything that the kernel remembers or a worker answers.
2. A value that does not fit raises ProtocolError `schema`; nothing is coerced but an integer to a float.
3. A missing member takes the field's default, so that a journal survives an upgrade; an unknown one is refused.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from fleet_protocol.errors import ProtocolError
from fleet_protocol.ids import shown

T = TypeVar("T")
Reader = Callable[[Any, str], Any]


def to_json(value: Any) -> Any:
    """The JSON value of a dataclass of the kernel, or of what may stand in one. Other things raise TypeError."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    raise TypeError(f"{type(value).__name__} does not stand in the kernel's records")


def from_json(kind: type[T], value: Any) -> T:
    """The value of `kind` whose `to_json` this is; raises ProtocolError `schema` where there is none."""
    hint: Any = kind
    return cast(T, _reader(hint)(value, kind.__name__))


@cache
def _reader(hint: Any) -> Reader:
    """What reads a value of this type hint; raises TypeError for a hint that the codec does not know."""
    if hint in _SCALARS:
        return _SCALARS[hint]
    if is_dataclass(hint):
        return _object_reader(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _literal_reader(arguments)
    if origin in (Union, UnionType):
        return _optional_reader(arguments)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _tuple_reader(arguments[0])
    if origin is not None and issubclass(origin, Mapping) and arguments[0] is str:
        return _mapping_reader(arguments[1])
    raise TypeError(f"the codec does not know {hint}")


def _object_reader(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    members = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    needed = {field.name for field in fields(kind) if not _has_default(field)}

    def read(value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise _misfit(value, place, "an object")
        unknown, missing = value.keys() - members.keys(), needed - value.keys()
        if unknown or missing:
            raise ProtocolError("schema", f"{place}: unknown {sorted(map(shown, unknown))}, missing {sorted(missing)}")
        return kind(**{name: members[name](item, f"{place}.{name}") for name, item in value.items()})

    return read


def _literal_reader(allowed: tuple[Any, ...]) -> Reader:
    def read(value: Any, place: str) -> Any:
        if type(value) is not str or value not in allowed:
            raise _misfit(value, place, f"one of {', '.join(allowed)}")
        return value

    return read


def _optional_reader(alternatives: tuple[Any, ...]) -> Reader:
    """A type or None: the only union in the kernel's records."""
    present = [alternative for alternative in alternatives if alternative is not NoneType]
    if len(present) != 1 or len(alternatives) != 2:
        raise TypeError("the codec knows only unions of one type with None")
    inner = _reader(present[0])
    return lambda value, place: None if value is None else inner(value, place)


def _tuple_reader(hint: Any) -> Reader:
    inner = _reader(hint)

    def read(value: Any, place: str) -> Any:
        if not isinstance(value, list):
            raise _misfit(value, place, "a list")
        return tuple(inner(item, f"{place}[{index}]") for index, item in enumerate(value))

    return read


def _mapping_reader(hint: Any) -> Reader:
    inner = _reader(hint)

    def read(value: Any, place: str) -> Any:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _misfit(value, place, "an object")
        return {key: inner(item, f"{place}.{key}") for key, item in value.items()}

    return read


def _text(value: Any, place: str) -> str:
    if type(value) is not str:
        raise _misfit(value, place, "a string")
    return value


def _whole(value: Any, place: str) -> int:
    if type(value) is not int:
        raise _misfit(value, place, "an integer")
    return value


def _number(value: Any, place: str) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _misfit(value, place, "a finite number")
    return number


def _flag(value: Any, place: str) -> bool:
    if type(value) is not bool:
        raise _misfit(value, place, "true or false")
    return value


_SCALARS: Final[Mapping[Any, Reader]] = {str: _text, int: _whole, float: _number, bool: _flag}


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _misfit(value: object, place: str, wanted: str) -> ProtocolError:
    return ProtocolError("schema", f"{place[-200:]}: {shown(value)} is not {wanted}")
