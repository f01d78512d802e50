"""What handlers get of AMQP 1.0 messages: every form of descriptor, every kind of body."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypedDict
from uuid import UUID

import anyio
import msgspec
import pydantic
import pytest

from flowstream import DeadLetter, Environment, Message, Pipeline, Retry, StreamProducer
from flowstream.client import AmqpMessage, Array, Described, Symbol, Timestamp
from flowstream.protocol import Char, Float32, Properties, UInt, ULong, encode_message
from flowstream.protocol.amqp_encode import encode_value
from flowstream.testing import PipelineTester
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE

NAMES = {
    0x72: b"amqp:message-annotations:map",
    0x74: b"amqp:application-properties:map",
    0x75: b"amqp:data:binary",
    0x76: b"amqp:amqp-sequence:list",
    0x77: b"amqp:amqp-value:*",
}
FORMS = {
    "small number": lambda code: bytes((0, 0x53, code)),
    "number": lambda code: b"\x00\x80" + code.to_bytes(8),
    "symbol": lambda code: b"\x00\xa3" + bytes((len(NAMES[code]),)) + NAMES[code],
    "long symbol": lambda code: b"\x00\xb3" + len(NAMES[code]).to_bytes(4) + NAMES[code],
}
FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def message(form: Any, *sections: tuple[int, Any]) -> bytes:
    return b"".join(form(code) + encode_value(value) for code, value in sections)


class Order(pydantic.BaseModel):
    id: int
    amount: Decimal = Decimal(0)
    key: UUID | None = None


@dataclass
class Row:
    id: int


class Typed(TypedDict):
    id: int


class Struct(msgspec.Struct):
    id: int
    name: str = ""


def handled(payload: Any, *bodies: bytes) -> tuple[list[Any], list[str]]:
    """The data of the messages that reached a handler of `payload`, and the others' reasons."""
    seen: list[Any] = []
    pipeline = Pipeline("reading", StreamProducer("in"), on_failure=DeadLetter("dead", 1.0))

    async def handle(message: Any) -> None:
        assert message.raw
        seen.append(message.data)

    handle.__annotations__["message"] = payload
    pipeline.processor(handle)
    tester = PipelineTester(pipeline)
    result = tester.run_sync(*bodies)
    for letter in tester.dead_letters():
        assert letter.body == bodies[letter.offset]
        assert letter.phase == "decode"
    return seen, [outcome.reason or "" for outcome in result if outcome.status != "ok"]


@FORM
def test_the_descriptor_of_a_section_may_have_any_form(form: Any) -> None:
    data = message(form, (0x75, b'{"id": 1}'))
    behind = message(form, (0x74, {"a": "b"}), (0x72, {Symbol("x-a"): 1}), (0x75, b'{"id": 2}'))
    text = message(form, (0x77, '{"id": 3}'))
    parts = message(form, (0x75, b'{"id"'), (0x75, b": 4}"))
    orders, failed = handled(Message[Order], data, behind, text, parts)
    assert [order.id for order in orders] == [1, 2, 3, 4]
    assert not failed
    assert handled(Message[bytes], data) == ([b'{"id": 1}'], [])
    read = AmqpMessage(behind)
    assert read.application_properties == {"a": "b"}
    assert read.message_annotations == {"x-a": 1}


AS_THEY_ARE: list[Any] = [
    {"id": 1, 2: b"x", UUID(int=1): [None]},
    [1, "two", None],
    7,
    UInt(7),
    1.5,
    Float32(0.5),
    True,
    None,
    UUID(int=7),
    Timestamp(1_700_000_000_000),
    Described(ULong(0x123), {"id": 1}),
    Described(Symbol("acme:order:map"), [1]),
    Array(UInt, [UInt(1), UInt(2)]),
    b"\x00\xff",
]


@FORM
def test_a_value_reaches_handlers_that_name_no_type_as_it_is(form: Any) -> None:
    raws = [message(form, (0x77, value)) for value in AS_THEY_ARE]
    texts = [message(form, (0x77, text)) for text in ("text", Symbol("name"), Char("é"))]
    for annotation in (Message, Message[Any]):
        data, failed = handled(annotation, *raws, *texts)
        assert data == [*AS_THEY_ARE, b"text", b"name", "é".encode()]
        assert [type(value) for value in data[: len(raws)]] == list(map(type, AS_THEY_ARE))
        assert not failed


@FORM
def test_values_become_the_declared_type(form: Any) -> None:
    order = {"id": UInt(1), "amount": "2.50", Symbol("key"): UUID(int=3)}
    described = Described(ULong(0x99), {"id": Described(Symbol("id"), UInt(1))})
    raw = message(form, (0x77, order))
    inner = message(form, (0x77, described))
    assert handled(Message[Order], raw, inner) == (
        [Order(id=1, amount=Decimal("2.50"), key=UUID(int=3)), Order(id=1)], [],
    )  # fmt: skip
    ((data,), _) = handled(Message[dict], raw)
    assert data == {"id": 1, "amount": "2.50", "key": UUID(int=3)}
    assert {type(key) for key in data} == {str}
    assert type(data["id"]) is int
    assert handled(Message[dict[str, Any]], inner) == ([{"id": 1}], [])
    small = message(form, (0x77, {"id": UInt(1)}))
    assert handled(Message[Row], small) == ([Row(1)], [])
    assert handled(Message[Typed], small) == ([{"id": 1}], [])
    assert handled(Message[Struct], small) == ([Struct(1)], [])
    assert handled(Message[Order | Row], small)[1] == []
    sequences = message(form, (0x76, [1, 2]), (0x76, []), (0x76, ["three"]))
    assert handled(Message[list], sequences) == ([[1, 2, "three"]], [])
    assert handled(Message[Any], sequences) == ([[1, 2, "three"]], [])
    arrays = message(form, (0x77, Array(UInt, [UInt(1), UInt(2)])))
    assert handled(Message[list], arrays) == ([[1, 2]], [])
    assert handled(Message[list[Order]], message(form, (0x77, [{"id": 1}]))) == (
        [[Order(id=1)]],
        [],
    )
    assert handled(Message[str], message(form, (0x77, "é"))) == (["é"], [])
    assert handled(Message[dict], message(form, (0x77, '{"a": 1}'))) == ([{"a": 1}], [])


def test_a_value_of_another_type_fails_alone() -> None:
    good = encode_message(b'{"id": 1}')
    bad = [encode_message(value=value) for value in (1, None, [1], {"name": "x"})]
    orders, failed = handled(Message[Order], good, *bad, good)
    assert len(orders) == 2
    assert len(failed) == 4
    assert handled(Message[dict], *bad[:3])[1] == [
        "expected a JSON object, got int",
        "expected a JSON object, got NoneType",
        "expected a JSON object, got list",
    ]
    assert handled(Message[bytes], *bad)[1] == [
        f"expected bytes, got {name}" for name in ("int", "NoneType", "list", "dict")
    ]
    assert handled(Message[str], bad[0])[1] == ["expected text, got int"]


def test_a_message_without_a_body_is_null() -> None:
    raw = encode_message(b"", properties=Properties(subject="s")).removesuffix(encode_message(b""))
    assert handled(Message, raw) == ([None], [])


NO_MESSAGE = [
    b"\x00",
    b"\x00\x53",
    b"\x00\x53\x10data",
    b"\x00\x80\x00\x00",
    b"\x00\x80" + (0x1_0000_0075).to_bytes(8) + b"\xa0\x01x",
    b"\x00\xa3\x10amqp:data:binarx\xa0\x01x",
    b"\x00\xa3\xff" + b"a" * 255,
    b"\x00\xb3\xff\xff\xff\xffamqp:data:binary",
    b"\x00\xb3\x00\x00\x00\x10amqp:data:bi",
    b"\x00\xa1\x10amqp:data:binary\xa0\x01x",
    b"\x00\x00\x00\x00\x07{}",
]


def test_other_bodies_that_begin_alike_are_plain() -> None:
    assert handled(Message[bytes], *NO_MESSAGE) == (NO_MESSAGE, [])


DAMAGED = [
    b"\x00\x53\x75",
    b"\x00\x53\x75\xa0\x05abc",
    b"\x00\x53\x75\xa0\x01a\x00",
    b"\x00\x53\x75\x40",
    b"\x00\x80" + (0x75).to_bytes(8) + b"\xb0\xff\xff\xff\xffabc",
    b"\x00\xa3\x10amqp:data:binary",
    b"\x00\x53\x77\xd1\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x53\x77" + b"\xc0\x7f\x01" * 100,
    b"\x00\x53\x77" + b"\x00" * 5000,
    encode_message(value=1) + encode_message(b"two"),
    encode_message(value=1) + encode_message(value=2),
    encode_message(b"one") + encode_message(sequence=[2]),
]


def test_a_damaged_message_fails_alone() -> None:
    good = encode_message(b"good")
    seen, failed = handled(Message[bytes], good, *DAMAGED, good)
    assert seen == [b"good", b"good"]
    assert len(failed) == len(DAMAGED)
    assert handled(Message, good, *DAMAGED, good)[0] == [b"good", b"good"]


def test_annotations_and_properties_are_on_the_message() -> None:
    seen: list[Any] = []
    pipeline = Pipeline("reading", StreamProducer("in"))

    @pipeline.processor
    async def handle(message: Message[Any]) -> None:
        seen.append((message.message_annotations, message.application_properties))

    raw = encode_message(
        value={"id": 1},
        message_annotations={"x-routing-key": "orders.eu"},
        application_properties={"trace": "t"},
    )
    assert PipelineTester(pipeline).run_sync(raw, b"plain").ok
    assert seen == [({"x-routing-key": "orders.eu"}, {"trace": "t"}), ({}, {})]
    assert Message.new(1).message_annotations == {}


def test_a_value_is_decoded_anew_when_the_message_is_tried_again() -> None:
    seen: list[Any] = []
    pipeline = Pipeline("reading", StreamProducer("in"), retry=Retry(attempts=2))

    @pipeline.processor
    async def handle(message: Message[dict[str, Any]]) -> None:
        seen.append(dict(message.data))
        message.data["touched"] = True
        if len(seen) == 1:
            raise ValueError("once")

    assert PipelineTester(pipeline).run_sync(encode_message(value={"id": 1})).ok
    assert seen == [{"id": 1}, {"id": 1}]


@pytest.mark.anyio
async def test_on_a_broker(broker: Broker, stream_name: str) -> None:
    values: list[Any] = [{"id": 1}, [1, 2], None, Described(ULong(9), "x"), UUID(int=1)]
    raws = [message(form, (0x77, value)) for form in FORMS.values() for value in values]
    raws += [message(form, (0x75, b"data")) for form in FORMS.values()]
    seen: list[tuple[bytes, Any]] = []
    pipeline = Pipeline("reading", StreamProducer(stream_name))

    @pipeline.processor
    async def handle(message: Message[Any]) -> None:
        seen.append((message.raw, message.data))
        if len(seen) == len(raws):
            assert pipeline.running is not None
            pipeline.running.stop()

    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        async with environment.publisher(stream_name) as publisher:
            await publisher.publish_many(raws)
        with anyio.fail_after(PATIENCE):
            result = await pipeline.run(environment=environment)
    result.raise_for_error()
    assert [raw for raw, _ in seen] == raws
    assert [data for _, data in seen] == values * len(FORMS) + [b"data"] * len(FORMS)
