"""Tables: as wide as there is room, and never with a broken word."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.cli.output.tables import GAP, PROSE, Rows, fit, text_of
from tests.cli.command import Terminal

ROWS: list[dict[str, object]] = [
    {"stream": "orders.priced", "last_offset": 12_345, "detail": "a sentence of several words"},
    {"stream": "o", "last_offset": None, "detail": "short"},
]
TABLE = Rows.of(ROWS, ["stream", "last_offset", "detail"])


def test_a_table_as_text() -> None:
    assert TABLE.lines() == [
        "stream         last offset  detail",
        "orders.priced       12,345  a sentence of several words",
        "o                        -  short",
    ]


def test_wide_characters_take_two_columns() -> None:
    rows = [{"stream": "注文", "n": 1}, {"stream": "orders", "n": 20}]
    assert Rows.of(rows, ["stream", "n"]).lines() == ["stream   n", "注文     1", "orders  20"]


def test_a_column_of_nothing_known_is_not_one_of_numbers() -> None:
    rows: list[dict[str, object]] = [
        {"a": None, "b": True, "c": None},
        {"a": None, "b": False, "c": 2},
    ]
    assert Rows.of(rows, ["a", "b", "c"]).numeric == [False, False, True]


@pytest.mark.parametrize(
    ("room", "widths"),
    [
        (200, [13, 11, 27]),
        (13 + 11 + 27 + 2 * GAP, [13, 11, 27]),
        (50, [13, 11, 22]),
        (13 + len("offset") + PROSE + 2 * GAP, [13, 6, PROSE]),
        (13 + len("offset") + PROSE + 2 * GAP - 1, None),
    ],
)
def test_prose_gives_way_first_then_headings_and_no_name(
    room: int, widths: list[int] | None
) -> None:
    assert TABLE.widths(room) == widths


columns = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=9)


@given(columns, st.integers(0, 400))
def test_widths_fill_the_room_or_are_none(columns: list[tuple[int, int]], room: int) -> None:
    least = [width for width, _ in columns]
    natural = [width + more for width, more in columns]
    widths = fit(natural, least, room)
    if widths is None:
        assert sum(least) > room
    else:
        assert all(a <= b <= c for a, b, c in zip(least, widths, natural, strict=True))
        assert sum(widths) == min(sum(natural), room)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (1_048_576, "1,048,576"),
        (0.0, "0"),
        (10.0, "10"),
        (0.01712, "0.0171"),
        (7.25, "7.25"),
        (1078.4, "1,078"),
        (99.96, "100"),
        ("x", "x"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert text_of(value) == text


def test_a_narrow_terminal_gets_lines_and_no_word_is_broken() -> None:
    with Terminal("config", env={"COLUMNS": "80"}) as wide:
        assert wide.end() == 0
    assert re.search(r"^setting +value +origin *\r\n─+\r\n", wide.screen)
    with Terminal("config", env={"COLUMNS": "20"}) as narrow:
        assert narrow.end() == 0
    assert "setting  log_level\r\nvalue    warning\r\norigin   default\r\n" in narrow.screen
