"""Columns are a model's fields; a row has their values as the database takes them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel, Field

from flowstream.connectors.sql.columns import Column, RowMaker, as_iso, as_text, columns_of
from flowstream.connectors.sql.sqlite import CONVERT
from flowstream.errors import ConfigurationError

CustomerId = NewType("CustomerId", int)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(Enum):
    ONE = 1
    TWO = "two"


class Place(BaseModel):
    city: str


class Model(BaseModel):
    whole: int
    flag: bool
    real: float
    exact: Decimal = Field(decimal_places=2)
    name: str
    body: bytes
    at: datetime.datetime
    day: datetime.date
    hour: datetime.time
    id: UUID
    customer: CustomerId
    color: Color
    mixed: Mixed
    size: Literal["S", "M"]
    bound: Annotated[int, Field(ge=0)]
    maybe: str | None = None
    either: int | str = 0
    place: Place
    tags: list[str]
    anything: Any = None


KINDS = {
    "whole": "int", "flag": "bool", "real": "float", "exact": "decimal", "name": "text",
    "body": "bytes", "at": "datetime", "day": "date", "hour": "time", "id": "uuid",
    "customer": "int", "color": "text", "mixed": "json", "size": "text", "bound": "int",
    "maybe": "text", "either": "json", "place": "json", "tags": "json", "anything": "json",
}  # fmt: skip


def test_every_type_has_a_kind() -> None:
    columns = columns_of(Model)
    assert {column.name: column.kind for column in columns} == KINDS
    assert [column.name for column in columns if column.optional] == ["maybe", "anything"]


@dataclass
class Plain:
    id: int
    name: str | None


class Struct(msgspec.Struct):
    id: int
    name: str | None


class Typed(TypedDict):
    id: int
    name: NotRequired[str]


@pytest.mark.parametrize("fields", [Plain, Struct, Typed, {"id": int, "name": str | None}])
def test_kinds_of_models(fields: Any) -> None:
    assert columns_of(fields) == (Column("id", "int"), Column("name", "text", optional=True))


@pytest.mark.parametrize("fields", [None, 5, "id", {}, object, int, Any, {1: int}, {"": int}])
def test_what_has_no_fields_is_refused(fields: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^columns=.*: expected a pydantic model"):
        columns_of(fields)


def row(fields: Any, data: Any) -> tuple[Any, ...]:
    return RowMaker(columns_of(fields), CONVERT)(data)


def test_a_row_has_the_values_in_the_order_of_the_columns() -> None:
    data = Model(
        whole=1, flag=True, real=0.5, exact=Decimal("1.10"), name="n", body=b"b",
        at=datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
        day=datetime.date(2026, 1, 2), hour=datetime.time(3, 4), id=UUID(int=7),
        customer=CustomerId(5), color=Color.BLUE, mixed=Mixed.TWO, size="S", bound=0,
        either="x", place=Place(city="Rome"), tags=["a", "b"], anything={"x": 1},
    )  # fmt: skip
    assert row(Model, data) == (
        1, True, 0.5, "1.10", "n", b"b", "2026-01-02T02:00:00+00:00", "2026-01-02", "03:04:00",
        "00000000-0000-0000-0000-000000000007", 5, "blue", '"two"', "S", 0, None, '"x"',
        '{"city":"Rome"}', '["a","b"]', '{"x":1}',
    )  # fmt: skip


def test_a_dict_may_lack_what_is_optional_only() -> None:
    assert row(Typed, {"id": 1}) == (1, None)
    assert row(Typed, {"id": 1, "name": "n", "more": 5}) == (1, "n")
    with pytest.raises(
        LookupError, match="the data has no field 'id', but the table has this column"
    ):
        row(Typed, {"name": "n"})


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({"tags": list}, {"tags": [float("nan")]}),
        ({"at": datetime.datetime}, {"at": 5}),
        ({"id": UUID}, {"id": object()}),
        ({"id": int}, object()),
    ],
)
def test_what_has_no_form_raises(fields: Mapping[str, Any], data: Any) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        row(fields, data)


def test_text_passes_as_it_is() -> None:
    assert as_iso("2026-01-01") == as_text("2026-01-01") == "2026-01-01"
