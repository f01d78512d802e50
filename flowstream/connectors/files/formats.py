"""Rows as the bytes of a file: `parquet` by pyarrow, or `ndjson`, a line of JSON for each row.

An encoder gives the file and the rows that cannot be in it, by index, each with its error. What one
message holds keeps no other message out of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from flowstream.connectors.encoding import encode_payload
from flowstream.pipeline import ORIGIN_COLUMNS, arrow_table
from flowstream.texts import shown

Place = tuple[str, int]
"""The stream and the offset of a row."""


class Rows(NamedTuple):
    """The data of some messages; `places` where their streams and offsets are wanted as columns.
    `without` are columns that the folder of the file tells."""

    data: Sequence[Any]
    places: Sequence[Place] | None
    without: Sequence[str] = ()

    def only(self, indexes: Sequence[int]) -> Rows:
        """The rows at these indexes."""
        places = None if self.places is None else [self.places[index] for index in indexes]
        return Rows([self.data[index] for index in indexes], places, self.without)


class Encoded(NamedTuple):
    """The bytes of a file, and why which rows are not in it."""

    content: bytes
    errors: dict[int, Exception]


Encoder = Callable[[Rows], Encoded]


def ndjson(rows: Rows) -> Encoded:
    """A line of JSON for each row."""
    lines: list[bytes] = []
    errors: dict[int, Exception] = {}
    for index, item in enumerate(rows.data):
        try:
            line = _line(item)
            if rows.places is not None:
                line = _with_origin(line, rows.places[index])
        except Exception as error:
            errors[index] = error
        else:
            lines.append(line)
    return Encoded(b"".join(line + b"\n" for line in lines), errors)


def _line(item: Any) -> bytes:
    """JSON in one line: bytes are JSON already, everything else becomes it."""
    if isinstance(item, str):
        return to_json(item)
    if not isinstance(item, bytes):
        return encode_payload(item)
    from_json(item, allow_inf_nan=False)  # raises where it is not
    return item.translate(_ONE_LINE).strip()


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")
"""JSON has line feeds between its tokens only."""


def _with_origin(line: bytes, place: Place) -> bytes:
    if not line.startswith(b"{"):
        raise TypeError(f"{shown(line)} is no JSON object, so it has no room for {ORIGIN_COLUMNS}")
    stream, offset = ORIGIN_COLUMNS
    head = b'{"%b":%b,"%b":%d' % (
        stream.encode(), json.dumps(place[0]).encode(), offset.encode(), place[1],
    )  # fmt: skip
    rest = line[1:].lstrip()
    return head + (b"" if rest.startswith(b"}") else b",") + rest


def parquet(schema: Any) -> Encoder:
    """An encoder of Parquet; `schema` as `Batch.to_arrow` takes it."""

    def encode(rows: Rows) -> Encoded:
        errors: dict[int, Exception] = {}
        try:
            table = arrow_table(rows.data, schema, rows.places)
        except Exception as error:
            errors = _unfit(rows.data, range(len(rows.data)), schema)
            rows = rows.only([index for index in range(len(rows.data)) if index not in errors])
            table = _together(rows, schema, error)
        return Encoded(_written(table, rows.without), errors)

    return encode


def _unfit(data: Sequence[Any], indexes: range, schema: Any) -> dict[int, Exception]:
    """The rows of which no table can be made, found by halving."""
    try:
        arrow_table([data[index] for index in indexes], schema)
    except Exception as error:
        if len(indexes) == 1:
            return {indexes[0]: error}
        middle = len(indexes) // 2
        return _unfit(data, indexes[:middle], schema) | _unfit(data, indexes[middle:], schema)
    return {}


def _together(rows: Rows, schema: Any, cause: Exception) -> Any:
    """The table of rows that are right by themselves; their types may still disagree."""
    try:
        return arrow_table(rows.data, schema, rows.places)
    except Exception as error:
        raise TypeError(
            f"a column would have values of several types: {error}. Say the types of the columns "
            "with FileSink(schema=...)"
        ) from cause


def _written(table: Any, without: Sequence[str]) -> bytes:
    pyarrow, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    found = [name for name in without if name in table.column_names]
    if found:
        table = table.drop_columns(found)
    buffer = pyarrow.BufferOutputStream()
    pq.write_table(table, buffer)
    content: bytes = buffer.getvalue().to_pybytes()
    return content
