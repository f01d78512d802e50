"""Texts of others: printable, and as JSON that is always valid and exact."""

from __future__ import annotations

import json
import math
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.cli.output.safe_text import (
    MAX_NESTING,
    NotShown,
    json_text,
    shortened,
    verbatim,
    visible,
)

texts = st.text(st.characters())
"""Half pairs of surrogates too."""
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary() | st.uuids()
keys = texts | st.integers() | st.binary() | st.uuids() | st.none() | st.floats()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner),
    max_leaves=12,
)
exact = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)  # fmt: skip


@given(values, st.none() | st.just(2), st.booleans())
def test_every_value_is_valid_json_and_printable(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = json_text(value, indent=indent, ascii_only=ascii_only)
    json.loads(text, parse_constant=refuse)
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.isascii() or not ascii_only
    assert indent is not None or "\n" not in text
    text.encode()


@given(exact, st.none() | st.just(2))
def test_what_json_has_a_form_for_keeps_it(value: Any, indent: int | None) -> None:
    text = json_text(value, indent=indent)
    assert json.loads(text) == value
    assert json.loads(verbatim(text)) == value
    plain = json.dumps(value, indent=indent, ensure_ascii=False)
    if plain.isascii() and "\x7f" not in plain:
        assert text == plain


def test_values_that_contain_themselves_come_to_an_end() -> None:
    circle: dict[str, Any] = {}
    circle["a"] = circle["b"] = circle
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        assert len(json_text(value)) < 100_000
        json.loads(json_text(value))
    while deep:
        deep = deep.pop()


def test_forms_of_their_own() -> None:
    assert json_text({"a": math.inf, "b": b"\x00", UUID(int=0): ()}) == (
        '{"a": "Infinity", "b": {"base64": "AA=="}, "00000000-0000-0000-0000-000000000000": []}'
    )
    assert json_text({1: "a", "1": "b"}) == '[[1, "a"], ["1", "b"]]'


@given(texts)
def test_visible_text_moves_no_cursor(text: str) -> None:
    assert visible(text).isprintable()
    assert visible(text, keep="\n").replace("\n", "").isprintable()
    visible(text).encode()


@pytest.mark.parametrize(
    "text", ["-0.0", "1e400", "12345678901234567890.10", "9" * 10_000, '{"a":1,"a":2}', r'"\ud800"']
)
def test_json_is_kept_digit_by_digit(text: str) -> None:
    assert verbatim(f" [{text},\n\t{text}]\r\n") == f"[{text},  {text}]"


@pytest.mark.parametrize("text", ["", "{", "nul", "[1]]", "'a'", '"\x00"', "01", "\ufeff1"])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own texts
        verbatim(text)


def test_what_is_not_shown_as_json_says_why() -> None:
    for text, why in [
        ("NaN", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("[" * 5_000 + "]" * 5_000, "5,000 deep"),
        ('{"[":' * 501 + "1" + "}" * 501, "501 deep"),
    ]:
        with pytest.raises(NotShown, match=why):
            verbatim(text)
    assert verbatim("[" * MAX_NESTING + "]" * MAX_NESTING)
    assert verbatim(json.dumps(["[{" * 1_000, '"[' * 1_000]))
    assert verbatim("[" + ",".join(["[]"] * 5_000) + "]")


def test_a_string_without_an_end_is_looked_at_once() -> None:
    with pytest.raises(ValueError, match="Unterminated"):
        verbatim("[" * (MAX_NESTING - 1) + "[],[]" + ',"' + r"\"" * 500_000)


def test_long_texts_are_shortened() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "abc…"
    assert shortened("abcd", 3, "(4 bytes)") == "abc… (4 bytes)"
