"""Batches as tables of pyarrow: by the fields of models, or by what JSON bodies hold."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import typing
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from flowstream.errors import NotSupported
from flowstream.pipeline import Batch, Message, arrow

pa: Any = pytest.importorskip("pyarrow", reason="pyarrow is not installed: the extra parquet")


class Kind(enum.Enum):
    SALE = "sale"


class Line(BaseModel):
    sku: str
    price: decimal.Decimal


class Order(BaseModel):
    id: int
    at: dt.datetime
    day: dt.date | None = None
    kind: Kind = Kind.SALE
    key: uuid.UUID = uuid.UUID(int=1)
    lines: list[Line] = Field(default_factory=list)
    tags: dict[str, int] = Field(default_factory=dict)
    extra: Any = None
    ratio: int | float = 0
    body: bytes = b""
    size: typing.Literal["s", "m"] = "s"


AT = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)


def test_the_columns_of_a_model_have_the_types_of_its_fields() -> None:
    order = Order(
        id=1, at=AT, day=AT.date(), lines=[Line(sku="a", price=decimal.Decimal("1.50"))],
        tags={"x": 1}, extra={"y": [1]}, body=b"\xff",
    )  # fmt: skip
    table = Batch.new(order, Order(id=2, at=AT)).to_arrow()
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "int64", "at": "timestamp[us, tz=UTC]", "day": "date32[day]", "kind": "string",
        "key": "string", "lines": "list<item: struct<sku: string, price: decimal128(38, 18)>>",
        "tags": "map<string, int64>", "extra": "string", "ratio": "double", "body": "binary",
        "size": "string",
    }  # fmt: skip
    row = table.to_pylist()[0]
    assert row["at"] == AT
    assert row["kind"] == "sale"
    assert row["lines"] == [{"sku": "a", "price": decimal.Decimal("1.50")}]
    assert (row["tags"], row["extra"], row["body"]) == ([("x", 1)], '{"y":[1]}', b"\xff")
    assert table.to_pylist()[1]["day"] is None


@dataclasses.dataclass
class Point:
    x: float
    y: float | None


class Packed(msgspec.Struct):
    x: float
    y: float | None


class Typed(typing.TypedDict):
    x: float
    y: float | None


class Node(BaseModel):
    x: float
    inner: Node | None = None


@pytest.mark.parametrize("kind", [Point, Packed])
def test_dataclasses_and_structs_are_rows(kind: Any) -> None:
    table = Batch.new(kind(1, None), kind(2, 3)).to_arrow()
    assert table.to_pylist() == [{"x": 1.0, "y": None}, {"x": 2.0, "y": 3.0}]
    assert table.schema.field("y").type == pa.float64()


def test_a_model_that_holds_itself_ends_as_json() -> None:
    table = Batch.new(Node(x=1, inner=Node(x=2))).to_arrow()
    assert table.to_pylist() == [{"x": 1.0, "inner": '{"x":2.0,"inner":null}'}]


@pytest.mark.parametrize(
    "schema", [Typed, Point, pa.schema([("x", pa.float64()), ("y", pa.float64())])]
)
@pytest.mark.parametrize("as_bodies", [False, True])
def test_a_schema_decides_the_columns(schema: Any, as_bodies: bool) -> None:
    data: list[Any] = [{"x": 1, "z": "left out"}, {"y": 2.5}]
    if as_bodies:
        data = [json.dumps(item).encode() for item in data]
    table = Batch.new(*data).to_arrow(schema)
    assert table.to_pylist() == [{"x": 1.0, "y": None}, {"x": None, "y": 2.5}]


def test_bodies_are_parsed_by_pyarrow_and_text_stays_text() -> None:
    bodies = [b'{"at":"2026-01-02 03:04:05","n":{"at":["2026-01-01"]}}', b'{"b":\n1.5}']
    table = Batch.new(*bodies).to_arrow()
    assert table.to_pylist() == [
        {"at": "2026-01-02 03:04:05", "n": {"at": ["2026-01-01"]}, "b": None},
        {"at": None, "n": None, "b": 1.5},
    ]


@pytest.mark.parametrize(
    "bodies",
    [
        [b'{"a":1}{"a":2}'],
        [b'{"a":', b"1}"],
        [b"[1]"],
        [b""],
        [b'{"a":NaN}'],
        ["text"],
        [1],
    ],
)
def test_what_is_no_row_is_refused(bodies: list[Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Batch.new(*bodies).to_arrow()


def test_data_of_several_types_are_refused() -> None:
    with pytest.raises(TypeError, match=r"several types \(Point, dict\)"):
        Batch.new(Point(1, 2), {"x": 1}).to_arrow()


def test_columns_say_where_rows_come_from() -> None:
    batch = Batch([Message.new({"a": n}, stream=f"s{n}", offset=n + 5) for n in range(2)])
    rows = batch.to_arrow(origin=True).to_pylist()
    assert rows == [{"a": n, "_stream": f"s{n}", "_offset": n + 5} for n in range(2)]
    assert Batch.new().to_arrow().num_rows == 0


KEYS = st.sampled_from(["a", "b", "c d", 'q"'])


@given(st.lists(st.dictionaries(KEYS, st.none() | st.text() | st.just("2026-01-01")), min_size=1))
@pytest.mark.medium
def test_bodies_and_dicts_give_the_same_rows(rows: list[dict[str, Any]]) -> None:
    if not any(rows):
        return
    names = {name for row in rows for name in row}
    expected = [{name: row.get(name) for name in names} for row in rows]
    assert Batch.new(*rows).to_arrow().to_pylist() == expected
    bodies = [json.dumps(row).encode() for row in rows]
    assert Batch.new(*bodies).to_arrow().to_pylist() == expected


def test_without_pyarrow_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(arrow, "import_module", missing)
    with pytest.raises(NotSupported, match=r"pip install 'flowstream\[parquet\]'"):
        Batch.new({"a": 1}).to_arrow()
