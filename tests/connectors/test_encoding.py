"""What is published as JSON is JSON; what cannot be fails its own message."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import deque
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import anyio
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream import DeadLetter, Environment, Message, Pipeline, StreamProducer, StreamSink
from flowstream.connectors.encoding import encode_payload
from flowstream.protocol import Symbol, Timestamp, UInt
from flowstream.testing import PipelineTester
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE, contents

INF, NAN = math.inf, math.nan


class Order(pydantic.BaseModel):
    amount: float | None = None
    lines: list[float] = []
    extra: Any = None


class Named(pydantic.BaseModel):
    amount: float = pydantic.Field(serialization_alias="Amount")
    note: str | None = None


class Texts(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_inf_nan="strings")
    amount: float


class Nulls(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_inf_nan="null")
    amount: float


class Constants(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")
    amount: float


class Hidden(pydantic.BaseModel):
    amount: float = pydantic.Field(exclude=True)
    note: None = None


@dataclasses.dataclass
class Row:
    value: Any


class Level(Enum):
    HIGHEST = INF


class Struct(msgspec.Struct, rename="camel"):
    unit_price: float | None


NO_JSON = [
    INF,
    NAN,
    {"a": [1, {"b": -INF}]},
    {"a": NAN, "b": None},
    Row(INF),
    Row(Order(amount=INF)),
    Order(amount=INF),
    Order.model_validate_json(b'{"amount": 1e400}'),
    Order(lines=[1.0, NAN]),
    Order(extra={"deep": [INF]}),
    Named(amount=NAN),
    Constants(amount=INF),
    [{"order": Order(amount=-INF)}],
    *(Order(extra=extra) for extra in ({1: NAN}, {None: [{2.5: INF}]}, {NAN}, frozenset([1, INF]))),
    *(Order(extra=extra) for extra in (deque([1, NAN]), {"1": None, 1: NAN}, Level.HIGHEST)),
    Struct(INF),
    "half a pair \ud800",
    {"a": "\ud800"},
    {"\udfff": 1},
    {"a": b"\xff"},
    {"a": object()},
    object(),
]

JSON: list[tuple[Any, Any]] = [
    ({"a": "NaN, Infinity and null"}, {"a": "NaN, Infinity and null"}),
    (Order(), {"amount": None, "lines": [], "extra": None}),
    (Named(amount=1.5), {"Amount": 1.5, "note": None}),
    (Texts(amount=INF), {"amount": "Infinity"}),
    (Nulls(amount=INF), {"amount": None}),
    (Hidden(amount=INF), {"note": None}),
    (Row({"a": None, "b": Decimal("1.10")}), {"value": {"a": None, "b": "1.10"}}),
    (Order(extra={1: None, 2: [{None}]}),
     {**Order().model_dump(), "extra": {"1": None, "2": [[None]]}}),
    (Struct(None), {"unitPrice": None}),
    ([Struct(0.5), date(2026, 1, 2)], [{"unitPrice": 0.5}, "2026-01-02"]),
    ({Symbol("s"): UInt(1), "t": Timestamp(2), "u": UUID(int=0)},
     {"s": 1, "t": 2, "u": "00000000-0000-0000-0000-000000000000"}),
]  # fmt: skip


def test_bytes_of_every_kind_are_published_as_they_are() -> None:
    for data in (b"\xff1", bytearray(b"\xff1"), memoryview(b"\xff1"), memoryview(b"\xff-1-")[::2]):
        assert encode_payload(data) == b"\xff1"


def test_what_is_no_json_raises() -> None:
    for data in NO_JSON:
        with pytest.raises((ValueError, TypeError)):
            encode_payload(data)


def test_what_is_json_is_written() -> None:
    for data, expected in JSON:
        assert json.loads(encode_payload(data)) == expected
    large = {"n": 10**5_000, "x": None, "y": "NaN"}
    assert encode_payload(large) == b'{"n":1%s,"x":null,"y":"NaN"}' % (b"0" * 5_000)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_a_body_reads_as_what_it_was(data: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    wrapped = {"data": data}
    try:
        body = encode_payload(wrapped)
    except ValueError:
        with pytest.raises(ValueError, match=r"JSON compliant|surrogates"):
            json.dumps(wrapped, allow_nan=False, ensure_ascii=False).encode()
    else:
        assert json.loads(body, parse_constant=refuse) == wrapped


def published(amqp: bool) -> Pipeline:
    pipeline = Pipeline("priced", StreamProducer("in"), on_failure=DeadLetter("dead", 1.0))

    @pipeline.processor
    async def handle(message: Message[dict[str, Any]]) -> None: ...

    pipeline.sink("out", StreamSink("out", amqp=amqp), size=100)
    return pipeline


BODIES = [b'{"a": 1}', b'{"a": 1e400}', b'{"a": 2}', b'{"a": [-1e999]}', b'{"a": 3}']


@pytest.mark.parametrize("amqp", [False, True])
def test_a_message_that_is_no_json_fails_alone(amqp: bool) -> None:
    tester = PipelineTester(published(amqp))
    result = tester.run_sync(*BODIES)
    assert result.statuses == ["ok", "dead_lettered", "ok", "dead_lettered", "ok"]
    assert tester.published("out") == [b'{"a":1}', b'{"a":2}', b'{"a":3}']
    letters = tester.dead_letters()
    assert [letter.body for letter in letters] == [BODIES[1], BODIES[3]]
    assert [letter.phase for letter in letters] == ["sink", "sink"]
    assert all("JSON has no" in letter.reason for letter in letters)
    assert result.committed == {"in": 4}


@pytest.mark.anyio
async def test_on_a_broker(broker: Broker, stream_name: str) -> None:
    pipeline = Pipeline(
        "priced", StreamProducer(stream_name), on_failure=DeadLetter(f"{stream_name}.dead", 1.0)
    )

    @pipeline.processor
    async def handle(message: Message[Order]) -> None: ...

    pipeline.sink("out", StreamSink(f"{stream_name}.out"), size=100, batch_timeout=0.05)
    async with Environment(broker.url) as environment:
        for name in (stream_name, f"{stream_name}.out"):
            await environment.create_stream(name)
        async with environment.publisher(stream_name) as publisher:
            await publisher.publish_many([b'{"amount": 1}', b'{"amount": 1e400}', b"{}"])
        with anyio.fail_after(PATIENCE):
            async with pipeline.start(environment=environment) as running:
                result = await running.wait_idle(0.3)
        assert result.settled == {"ok": 2, "dead_lettered": 1}
        bodies = [body for _, _, body in await contents(environment, f"{stream_name}.out")]
    assert [json.loads(body)["amount"] for body in bodies] == [1.0, None]
