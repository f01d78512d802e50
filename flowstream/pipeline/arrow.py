"""Data as a pyarrow Table: whole columns at a time, with the types that a model declares.

pyarrow is an extra, imported when a table is first made. A type of Python becomes a type of Arrow
in `_SCALARS` and `column_of`; what Arrow has no type for is stored as the text of its JSON.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import io
import sys
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import pydantic
from pydantic_core import from_json, to_json

from flowstream.errors import NotSupported
from flowstream.texts import shown, type_name

ORIGIN = ("_stream", "_offset")
"""The columns that say where a row comes from."""

Convert = Callable[[Any], Any]


class Column(NamedTuple):
    """A type of Arrow, and what makes a value of it from one of Python; None: nothing needs to."""

    type: Any
    convert: Convert | None = None


def pyarrow() -> Any:
    """The module; NotSupported, naming the extra, where it is not installed."""
    try:
        return import_module("pyarrow")
    except ImportError:
        raise NotSupported(
            "Arrow tables and Parquet files need pyarrow: pip install 'flowstream[parquet]'"
        ) from None


def table_of(
    data: Sequence[Any], schema: Any = None, places: Sequence[tuple[str, int]] | None = None
) -> Any:
    """The rows as a table; `places` are the stream and offset of each, for two more columns.

    Raises TypeError or ValueError where the data are not rows of one kind.
    """
    pa = pyarrow()
    table = _table(pa, data, schema)
    if table.num_rows != len(data):
        raise ValueError("the data have no fields, so a table has no columns to hold their rows")
    if places is not None:
        table = table.append_column(ORIGIN[0], pa.array([it[0] for it in places], pa.string()))
        table = table.append_column(ORIGIN[1], pa.array([it[1] for it in places], pa.int64()))
    return table


def _table(pa: Any, data: Sequence[Any], schema: Any) -> Any:
    kinds = set(map(type, data))
    if not kinds and schema is None:
        return pa.table({})
    if kinds == {bytes}:
        return _of_bodies(pa, data, None if schema is None else _schema(pa, schema))
    if len(kinds) > 1 and not all(issubclass(kind, Mapping) for kind in kinds):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"the data are of several types ({names}), and a table has rows of one")
    kind = dict if not kinds or issubclass(next(iter(kinds)), Mapping) else next(iter(kinds))
    if kind is dict:
        if schema is None:
            found = dict.fromkeys(name for row in data for name in row)
            return pa.table({name: pa.array([row.get(name) for row in data]) for name in found})
        columns = _columns(pa, schema)
        values = {name: [row.get(name) for row in data] for name in columns}
    else:
        columns = _columns(pa, kind if schema is None else schema)
        values = {name: [getattr(row, name, None) for row in data] for name in columns}
    return pa.table({name: _array(pa, values[name], columns[name]) for name in columns})


def _array(pa: Any, values: list[Any], column: Column) -> Any:
    if column.convert is not None:
        convert = column.convert
        values = [None if value is None else convert(value) for value in values]
    return pa.array(values, column.type)


# -- JSON bodies


def _of_bodies(pa: Any, bodies: Sequence[bytes], schema: Any) -> Any:
    """The rows of JSON objects, parsed by pyarrow all at once.

    Each body is checked by itself first. Otherwise `{"a":1}{"a":2}` would be two rows, and shift
    the rows of the messages behind it. JSON has line feeds between its tokens only.
    """
    for body in bodies:
        if not isinstance(from_json(body, allow_inf_nan=False), dict):
            raise ValueError(f"{shown(body)} is not a JSON object, as a row of a table must be")
    lines = b"\n".join(body.translate(_ONE_LINE) for body in bodies)
    if schema is not None:
        return _parsed(pa, lines, schema, "ignore")
    table = _parsed(pa, lines, None, "infer")
    strings = _without_times(pa, table.schema)
    # A column of text is one whether or not the text of this batch looks like a time.
    return table if strings is None else _parsed(pa, lines, strings, "infer")


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def _parsed(pa: Any, lines: bytes, schema: Any, unexpected: str) -> Any:
    json = import_module("pyarrow.json")
    options = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected)
    # A block is parsed by itself, and types are those of the first one: so there is one.
    block = json.ReadOptions(block_size=max(len(lines) + 1, 1 << 16), use_threads=False)
    return json.read_json(io.BytesIO(lines), read_options=block, parse_options=options)


def _without_times(pa: Any, schema: Any) -> Any:
    """The schema with text in place of times; None where there is no time in it."""
    fields = [pa.field(field.name, _text_for_times(pa, field.type)) for field in schema]
    changed = pa.schema(fields)
    return None if changed.equals(pa.schema([(f.name, f.type) for f in schema])) else changed


def _text_for_times(pa: Any, kind: Any) -> Any:
    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_text_for_times(pa, kind.value_type))
    if pa.types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return pa.struct([(field.name, _text_for_times(pa, field.type)) for field in fields])
    return kind


# -- models


def _schema(pa: Any, schema: Any) -> Any:
    if isinstance(schema, pa.Schema):
        return schema
    return pa.schema([(name, column.type) for name, column in _columns(pa, schema).items()])


def _columns(pa: Any, schema: Any) -> Mapping[str, Column]:
    """The columns of a schema of pyarrow, or of a class by its fields."""
    if isinstance(schema, pa.Schema):
        return {field.name: Column(field.type) for field in schema}
    return _columns_of(schema)


@cache
def _columns_of(kind: type) -> Mapping[str, Column]:
    fields = fields_of(kind)
    if fields is None:
        raise TypeError(
            f"{shown(kind)} has no fields for columns: expected dicts, JSON bodies, pydantic "
            "models, dataclasses or msgspec Structs"
        )
    return {name: column_of(annotation, (kind,)) for name, annotation in fields.items()}


def is_schema(value: object) -> bool:
    """Whether columns follow from the value: a schema of pyarrow, or a class with fields."""
    module = sys.modules.get("pyarrow")
    if module is not None and isinstance(value, module.Schema):
        return True
    return isinstance(value, type) and fields_of(value) is not None


def fields_of(kind: Any) -> Mapping[str, Any] | None:
    """The fields of a class with their annotations; None where it has none."""
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    msgspec = sys.modules.get("msgspec")
    struct = msgspec is not None and isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    if struct or typing.is_typeddict(kind):
        return typing.get_type_hints(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return None


def column_of(annotation: Any, inside: tuple[Any, ...] = ()) -> Column:
    """The column for values of an annotated type. All columns may have nulls.

    `inside`: the classes that it is a field of. Arrow has no recursive types.
    """
    pa = pyarrow()
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return column_of(arguments[0], inside)
    if origin in {Union, types.UnionType}:
        return _of_union([it for it in arguments if it is not types.NoneType], inside)
    if origin is Literal:
        kinds = {type(each) for each in arguments}
        return column_of(kinds.pop()) if len(kinds) == 1 else _as_json(pa)
    if origin in {list, set, frozenset, Sequence} or (origin is tuple and arguments[1:] == (...,)):
        return _of_list(pa, column_of(arguments[0], inside))
    if origin in {dict, Mapping} and arguments[0] is str:
        return _of_map(pa, column_of(arguments[1], inside))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        kinds = {type(member.value) for member in annotation}
        inner = column_of(kinds.pop()) if len(kinds) == 1 else _as_json(pa)
        return Column(inner.type, lambda value: getattr(value, "value", value))
    if annotation in _SCALARS:
        return _SCALARS[annotation](pa)
    fields = None if annotation in inside else fields_of(annotation)
    return _of_struct(pa, fields, (*inside, annotation)) if fields else _as_json(pa)


_SCALARS: Mapping[Any, Callable[[Any], Column]] = {
    str: lambda pa: Column(pa.string()),
    int: lambda pa: Column(pa.int64()),
    float: lambda pa: Column(pa.float64()),
    bool: lambda pa: Column(pa.bool_()),
    bytes: lambda pa: Column(pa.binary()),
    datetime.datetime: lambda pa: Column(pa.timestamp("us", tz="UTC")),
    datetime.date: lambda pa: Column(pa.date32()),
    datetime.time: lambda pa: Column(pa.time64("us")),
    datetime.timedelta: lambda pa: Column(pa.duration("us")),
    decimal.Decimal: lambda pa: Column(pa.decimal128(38, 18)),
    uuid.UUID: lambda pa: Column(pa.string(), str),
}


def _of_union(members: list[Any], inside: tuple[Any, ...]) -> Column:
    if len(members) == 1:
        return column_of(members[0], inside)
    return column_of(float) if set(members) == {int, float} else _as_json(pyarrow())


def _as_json(pa: Any) -> Column:
    def convert(value: Any) -> str:
        try:
            return to_json(value).decode()
        except ValueError as error:
            raise ValueError(f"{type_name(value)}: {error}") from error

    return Column(pa.string(), convert)


def _of_list(pa: Any, item: Column) -> Column:
    convert = item.convert or (lambda value: value)
    return Column(pa.list_(item.type), lambda value: [_or_none(convert, it) for it in value])


def _of_map(pa: Any, item: Column) -> Column:
    convert = item.convert or (lambda value: value)
    return Column(
        pa.map_(pa.string(), item.type),
        lambda value: [(str(key), _or_none(convert, it)) for key, it in value.items()],
    )


def _of_struct(pa: Any, fields: Mapping[str, Any], inside: tuple[Any, ...]) -> Column:
    columns = {name: column_of(annotation, inside) for name, annotation in fields.items()}

    def convert(value: Any) -> dict[str, Any]:
        found = value.get if isinstance(value, Mapping) else lambda name: getattr(value, name)
        return {
            name: _or_none(column.convert, found(name)) if column.convert else found(name)
            for name, column in columns.items()
        }

    return Column(pa.struct([(name, it.type) for name, it in columns.items()]), convert)


def _or_none(convert: Convert, value: Any) -> Any:
    return None if value is None else convert(value)
