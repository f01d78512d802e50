"""Every payload type is decoded in bulk, and a bad body fails none of its pipelines_of_modules."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import typing
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, TypedDict

import msgspec
import pydantic
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st

from flowstream.errors import PayloadError, UnsupportedPayloadType
from flowstream.pipeline.payload import decode_slice, decoder


class Model(pydantic.BaseModel):
    n: int
    amount: Decimal = Decimal(0)


@dataclasses.dataclass
class Data:
    n: int


class Typed(TypedDict):
    n: int


class Nested(TypedDict, total=False):
    items: list[Typed]
    other: Typed | None


class Struct(msgspec.Struct):
    n: int


class Created(pydantic.BaseModel):
    kind: Literal["created"]


class Deleted(pydantic.BaseModel):
    kind: Literal["deleted"]


class Opened(TypedDict):
    kind: Literal["opened"]


class Closed(TypedDict):
    kind: Literal["closed"]


class Red(msgspec.Struct, tag="red"):
    n: int


class Blue(msgspec.Struct, tag="blue"):
    n: int


class Unfinished(pydantic.BaseModel):
    later: Later  # type: ignore[name-defined] # noqa: F821


@pytest.mark.parametrize(
    ("payload", "body", "expected"),
    [
        (Model, b'{"n": 1, "amount": "2.50"}', Model(n=1, amount=Decimal("2.50"))),
        (Data, b'{"n": 1}', Data(1)),
        (Typed, b'{"n": 1}', {"n": 1}),
        (Nested, b'{"items": [{"n": 1}]}', {"items": [{"n": 1}]}),
        (Struct, b'{"n": 1}', Struct(1)),
        (dict, b'{"n": [1]}', {"n": [1]}),
        (list, b"[1, 2]", [1, 2]),
        (list[Model], b'[{"n": 1}]', [Model(n=1)]),
        (dict[str, int], b'{"n": 1}', {"n": 1}),
        (dict[str, Any], b'{"n": [1]}', {"n": [1]}),
        (list[Any], b"[1, [2]]", [1, [2]]),
        (str, "né".encode(), "né"),
        (Created | Deleted, b'{"kind": "deleted"}', Deleted(kind="deleted")),
        (Annotated[Model, "tag"], b'{"n": 1}', Model(n=1)),
        (
            Annotated[Created | Deleted, pydantic.Field(discriminator="kind")],
            b'{"kind": "deleted"}',
            Deleted(kind="deleted"),
        ),
        (
            Annotated[Opened | Closed, pydantic.Field(discriminator="kind")],
            b'{"kind": "closed"}',
            {"kind": "closed"},
        ),
        (Model | None, b'{"n": 1}', Model(n=1)),
        (Model | None, b"null", None),
        (Struct | None, b"null", None),
        (list[Struct], b'[{"n": 1}]', [Struct(1)]),
        (dict[str, Struct | None], b'{"a": {"n": 1}, "b": null}', {"a": Struct(1), "b": None}),
        (Red | Blue, b'{"type": "blue", "n": 2}', Blue(2)),
        (NewType("Renamed", Model), b'{"n": 1}', Model(n=1)),
        (NewType("Words", str), b"text", "text"),
        (list[NewType("Item", Struct)], b'[{"n": 1}]', [Struct(1)]),  # type: ignore[misc]
        (typing_extensions.TypeAliasType("Alias", Red | Blue), b'{"type": "red", "n": 1}', Red(1)),
    ],
)
def test_bodies_become_the_declared_type(payload, body, expected):
    decode = decoder(payload).decode
    assert decode is not None
    assert decode_slice(decode, [body]) == ([expected], [])


@pytest.mark.parametrize("payload", [bytes, Any])
def test_some_bodies_stay_as_they_are(payload):
    assert decoder(payload).decode is None


@pytest.mark.parametrize(
    "payload",
    [
        int, float, object, datetime.date, set, "Order", int | str, None, bytes | None,
        NewType("Number", int), Struct | Model, Struct | Red, Unfinished,
    ],
)  # fmt: skip
def test_other_types_are_refused_when_declared(payload):
    with pytest.raises(UnsupportedPayloadType, match="cannot be decoded to"):
        decoder(payload, handler="validate")


def test_an_error_shows_the_whole_type_and_what_to_do():
    for payload, said in (
        (set[int], "cannot be decoded to set[int]; use bytes, str, "),
        (Literal["a"], "cannot be decoded to Literal['a']; use "),
        (Unfinished, "to Unfinished: it names a type that is not defined yet; define that type "),
        (Struct | Red, "all Struct types must be tagged"),
    ):
        with pytest.raises(UnsupportedPayloadType, match=re.escape(said)):
            decoder(payload, handler="validate")


bodies = st.lists(
    st.one_of(
        st.integers().map(lambda n: json.dumps({"n": n}).encode()),
        st.sampled_from(
            [b"", b"{", b"[1", b"2]", b'{"n": "x"}', b"\xff", b"null", b'{"n": 1}}', b"[]"]
        ),
    ),
    max_size=40,
)


@given(bodies, st.sampled_from([Model, Typed, Struct, dict, list, dict[str, Any], list[Any]]))
def test_a_slice_decodes_as_its_bodies_do_one_by_one(bodies, payload):
    whole = decoder(payload)
    decode = whole.decode
    assert decode is not None
    data, bad = whole.slice(bodies)
    assert len(data) == len(bodies)
    wrong = {index for index, _ in bad}
    for index, body in enumerate(bodies):
        try:
            expected = decode(body)
        except Exception:
            assert index in wrong
            assert data[index] is None
        else:
            assert index not in wrong
            assert data[index] == expected
    assert all(isinstance(error, PayloadError) for _, error in bad)
    one_by_one = decode_slice(decode, bodies)[1]
    assert [(at, str(error)) for at, error in bad] == [(at, str(error)) for at, error in one_by_one]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
texts = st.one_of(
    values.map(json.dumps),
    values.map(lambda value: json.dumps(value, ensure_ascii=False)),
    st.text(max_size=20),
    st.sampled_from(
        [
            '{"a": 1, "a": 2}',
            '{"a": 1e400}',
            '["\\ud800"]',
            '{"a": -0}',
            f"[1{'0' * 5000}]",
            "[" * 300,
        ]
    ),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@given(texts, st.sampled_from([dict[str, Any], list[Any]]))
def test_json_of_any_values_decodes_as_pydantic_decodes_it(body, payload):
    data, bad = decoder(payload).slice([body])
    try:
        expected = pydantic.TypeAdapter(payload).validate_json(body)
    except pydantic.ValidationError:
        assert [index for index, _ in bad] == [0]
    else:
        assert not bad
        assert repr(data) == repr([expected])  # NaN, -0.0


@pytest.mark.parametrize(
    "payload",
    [dict[str, Any], typing.Dict[str, Any]],  # noqa: UP006 - what older modules are written with
)
def test_a_map_of_an_amqp_message_needs_keys_of_the_declared_type(payload):
    convert = decoder(payload).convert
    assert convert is not None
    assert convert({"n": 1}) == {"n": 1}
    with pytest.raises(pydantic.ValidationError):
        convert({1: "n"})


class Looked(pydantic.BaseModel):
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def known(cls, n: int) -> int:
        return {1: 1}[n]


def test_an_exception_of_a_validator_is_named():
    decode = decoder(Looked).decode
    assert decode is not None
    _, [(_, error)] = decode_slice(decode, [b'{"n": 2}'])
    assert str(error) == "KeyError: 2"


def test_errors_say_where_in_the_body():
    decode = decoder(Model).decode
    assert decode is not None
    _, [(_, error)] = decode_slice(decode, [b'{"n": "many"}'])
    assert str(error).startswith("n: ")
    assert "\n" not in str(error)
    _, [(_, error)] = decode_slice(decoder(dict).decode, [b"[]"])  # type: ignore[arg-type]
    assert "JSON object" in str(error)


@pytest.mark.parametrize("payload", [Model, Struct, dict, list, dict[str, Any], list[Any]])
def test_the_reason_of_a_body_that_is_no_json_says_so(payload):
    _, [(index, error)] = decoder(payload).slice([b"orders;2024"])
    assert index == 0
    assert "JSON" in str(error)
    assert "char" in str(error) or "column" in str(error) or "byte" in str(error)
