"""Rows as the bytes of a file: `parquet` by pyarrow, or `ndjson`, a line of JSON for each row.

An encoder returns the file, and the errors of rows that cannot be in it, by index. The other rows
are in the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from flowstream.connectors.encoding import encode_payload
from flowstream.pipeline import ORIGIN_COLUMNS, arrow_table
from flowstream.texts import describe, interrupts, shown

Place = tuple[str, int]
"""The stream and the offset of a row."""


class Rows(NamedTuple):
    """The data of some messages.

    With `places`, their streams and offsets become columns. `without` are columns to leave out,
    because the folder of the file has their values.
    """

    data: Sequence[Any]
    places: Sequence[Place] | None
    without: Sequence[str] = ()

    def only(self, indexes: Sequence[int]) -> Rows:
        """The rows at these indexes."""
        places = None if self.places is None else [self.places[index] for index in indexes]
        return Rows([self.data[index] for index in indexes], places, self.without)


class Encoded(NamedTuple):
    """The bytes of a file, and the errors of rows that are not in it, by index."""

    content: bytes
    errors: dict[int, BaseException]


Encoder = Callable[[Rows], Encoded]


def ndjson(rows: Rows) -> Encoded:
    """A line of JSON for each row."""
    lines: list[bytes] = []
    errors: dict[int, BaseException] = {}
    for index, item in enumerate(rows.data):
        try:
            line = _line(item)
            if rows.places is not None:
                line = _with_origin(line, rows.places[index])
        except BaseException as error:  # of a serializer of the user's
            if interrupts(error):
                raise
            errors[index] = error
        else:
            lines.append(line)
    return Encoded(b"".join(line + b"\n" for line in lines), errors)


def _line(item: Any) -> bytes:
    """JSON in one line. Bytes must be JSON; other data is encoded."""
    if isinstance(item, str):
        return to_json(item)
    if not isinstance(item, bytes):
        return encode_payload(item)
    from_json(item, allow_inf_nan=False)  # raises if it is not JSON
    return item.translate(_ONE_LINE).strip()


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")
"""In JSON, line breaks occur only between tokens, where spaces mean the same."""


def _with_origin(line: bytes, place: Place) -> bytes:
    if not line.startswith(b"{"):
        raise TypeError(f"{shown(line)} is not a JSON object, so {ORIGIN_COLUMNS} cannot be added")
    stream, offset = ORIGIN_COLUMNS
    head = b'{"%b":%b,"%b":%d' % (
        stream.encode(), json.dumps(place[0]).encode(), offset.encode(), place[1],
    )  # fmt: skip
    rest = line[1:].lstrip()
    return head + (b"" if rest.startswith(b"}") else b",") + rest


def parquet(schema: Any) -> Encoder:
    """An encoder of Parquet; `schema` as `Batch.to_arrow` takes it."""

    def encode(rows: Rows) -> Encoded:
        errors: dict[int, BaseException] = {}
        try:
            table = arrow_table(rows.data, schema, rows.places)
        except BaseException as error:
            if interrupts(error):
                raise
            errors = _unfit(rows.data, range(len(rows.data)), schema)
            rows = rows.only([index for index in range(len(rows.data)) if index not in errors])
            table = _together(rows, schema, error)
        return Encoded(_written(table, rows.without), errors)

    return encode


def _unfit(data: Sequence[Any], indexes: range, schema: Any) -> dict[int, BaseException]:
    """The rows that cannot be in a table, found by halving."""
    try:
        arrow_table([data[index] for index in indexes], schema)
    except BaseException as error:
        if interrupts(error):
            raise
        if len(indexes) == 1:
            return {indexes[0]: error}
        middle = len(indexes) // 2
        return _unfit(data, indexes[:middle], schema) | _unfit(data, indexes[middle:], schema)
    return {}


def _together(rows: Rows, schema: Any, cause: BaseException) -> Any:
    """The table of rows that are valid one by one. Their types may still differ."""
    try:
        return arrow_table(rows.data, schema, rows.places)
    except Exception as error:
        raise TypeError(
            f"a column would have values of several types: {describe(error)}. Set the types of the "
            "columns with FileSink(schema=...)"
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
