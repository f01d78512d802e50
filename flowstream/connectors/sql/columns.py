"""Columns of a table from the fields of a model, and rows from the data of messages. Pure.

Each column has a kind. Each database maps a kind to one of its types, and converts the values of
some kinds. A type without a kind of its own, such as a list or another model, is stored as JSON.
"""

from __future__ import annotations

import dataclasses
import datetime
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NewType, Union
from uuid import UUID

import typing_extensions
from pydantic import BaseModel

from flowstream.connectors.encoding import encode_payload
from flowstream.errors import ConfigurationError
from flowstream.texts import shown, type_name

Kind = Literal[
    "bool", "int", "float", "decimal", "text", "bytes", "datetime", "date", "time", "uuid", "json"
]
_KINDS: Mapping[Any, Kind] = {
    bool: "bool",
    int: "int",
    float: "float",
    Decimal: "decimal",
    str: "text",
    bytes: "bytes",
    datetime.datetime: "datetime",
    datetime.date: "date",
    datetime.time: "time",
    UUID: "uuid",
}
Fields = type | Mapping[str, Any]
"""A model, or names and types."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. An `optional` one may be NULL."""

    name: str
    kind: Kind
    optional: bool = False


def columns_of(fields: Any, option: str = "columns") -> tuple[Column, ...]:
    """The columns for the fields of a model, or for a dict of names and types, in their order.

    Raises ConfigurationError for anything else. The error names the `option`.
    """
    found = _types_of(fields)
    if not found:
        raise ConfigurationError(
            f"{option}={shown(fields)}: expected a pydantic model, a dataclass, a TypedDict, a "
            "msgspec.Struct, or a dict of names and types, with at least one field"
        )
    missing_allowed: Collection[str] = getattr(fields, "__optional_keys__", frozenset())
    return tuple(
        Column(name, kind, optional or name in missing_allowed)
        for name, (kind, optional) in ((name, _kind_of(it)) for name, it in found.items())
    )


def _types_of(fields: Any) -> dict[str, Any]:
    if isinstance(fields, Mapping):
        return dict(fields) if all(isinstance(name, str) and name for name in fields) else {}
    if not isinstance(fields, type):
        return {}
    if issubclass(fields, BaseModel):
        return {name: field.annotation for name, field in fields.model_fields.items()}
    hints = typing.get_type_hints(fields, include_extras=True)
    if dataclasses.is_dataclass(fields):
        return {field.name: hints[field.name] for field in dataclasses.fields(fields)}
    names = getattr(fields, "__struct_fields__", None)  # of msgspec
    if names is not None:
        return {name: hints[name] for name in names}
    return hints if typing_extensions.is_typeddict(fields) else {}


def _kind_of(hint: Any) -> tuple[Kind, bool]:
    """The kind of a type, and whether None is a value of it."""
    if isinstance(hint, NewType):
        return _kind_of(hint.__supertype__)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Annotated, typing.Required, typing.NotRequired):
        kind, optional = _kind_of(arguments[0])
        return kind, optional or origin is typing.NotRequired
    if origin in (Union, types.UnionType):
        kinds = {_kind_of(each)[0] for each in arguments if each is not types.NoneType}
        return (kinds.pop() if len(kinds) == 1 else "json"), types.NoneType in arguments
    if origin is Literal:
        return _kind_of_values(arguments), None in arguments
    if hint is Any or not isinstance(hint, type):
        return "json", hint is Any
    if issubclass(hint, Enum):
        return _kind_of_values([member.value for member in hint]), False
    for base in hint.__mro__:
        if base in _KINDS:
            return _KINDS[base], False
    return "json", False


def _kind_of_values(values: Sequence[Any]) -> Kind:
    kinds = {_kind_of(type(value))[0] for value in values if value is not None}
    return kinds.pop() if len(kinds) == 1 else "json"


# -- rows

Convert = Callable[[Any], Any]
"""Converts a value that is not None into what the database stores."""


class RowMaker:
    """Makes a row from the data of a message: a tuple with a value for each column.

    `convert` has a function for each kind that the database stores in another form.
    """

    def __init__(self, columns: Sequence[Column], convert: Mapping[Kind, Convert]) -> None:
        self._columns = [
            (each.name, each.optional, to_json if each.kind == "json" else convert.get(each.kind))
            for each in columns
        ]

    def __call__(self, data: Any) -> tuple[Any, ...]:
        """The row. Raises an exception of any type if the data has no such row."""
        mapping = isinstance(data, Mapping)
        values: list[Any] = []
        for name, optional, convert in self._columns:
            if not mapping:
                value = getattr(data, name)
            elif name in data:
                value = data[name]
            elif optional:
                value = None
            else:
                raise LookupError(f"the data has no field {name!r}, but the table has this column")
            if isinstance(value, Enum):
                value = value.value
            if value is not None and convert is not None:
                value = convert(value)
            values.append(value)
        return tuple(values)


def to_json(value: Any) -> str:
    """A value as JSON. A str becomes a JSON string."""
    if isinstance(value, str):
        return encode_payload([value]).decode()[1:-1]
    return encode_payload(value).decode()


def as_text(value: Any) -> str:
    """A str, or a number or an id as text, so that no digit is lost."""
    if type(value) is str:  # nearly always
        return value
    if isinstance(value, str | int | float | Decimal | UUID):
        return str(value)
    raise TypeError(f"expected a str, a number or an id, got an object of type {type_name(value)}")


def as_bytes(value: Any) -> Any:
    """Bytes as they are. Drivers would store other values as their text."""
    if isinstance(value, bytes | bytearray | memoryview):
        return value
    raise TypeError(f"expected bytes, got an object of type {type_name(value)}")


def as_iso(value: Any) -> str:
    """A date or time as text that sorts by time. With a time zone it is converted to UTC."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        value = value.astimezone(datetime.UTC)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"expected a date or a time, got an object of type {type_name(value)}")
