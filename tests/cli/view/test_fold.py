"""Everything has room, or is named; no line is wider than the window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from flowstream.cli.view.fold import Block, Span, fitted, flow, table, wrapped

TEXTS = st.text(alphabet="ab 月é[]\x1b\n", max_size=60)
SPANS = st.lists(st.tuples(TEXTS, st.just("")), max_size=8)


def block(rank: int, what: str, count: int, *, lines: int = 1, heading: int = 0) -> Block:
    items = [[Text(f"{what}{number}.{line}") for line in range(lines)] for number in range(count)]
    return Block(rank, what, items, [Text(f"{what}s")] * heading)


def shown(blocks: list[Block], width: int, height: int) -> list[str]:
    return [line.plain for line in fitted(blocks, width, height)]


def test_what_has_room_is_shown_whole_and_in_order() -> None:
    blocks = [block(4, "stream", 2, heading=1), block(0, "reason", 1)]
    everything = ["streams", "stream0.0", "stream1.0", "reason0.0"]
    assert shown(blocks, 80, 4) == everything
    assert shown(blocks, 80, 100) == everything


def test_room_is_given_by_rank_and_what_has_none_is_named() -> None:
    blocks = [block(4, "stream", 5, heading=1), block(0, "reason", 2), block(1, "stage", 3)]
    assert shown(blocks, 80, 7) == [
        *("reason0.0", "reason1.0", "stage0.0", "stage1.0", "stage2.0"),
        "no room for 5 streams: make the window larger",
    ]
    assert shown(blocks, 80, 8)[:2] == ["streams", "stream0.0"]
    assert shown(blocks, 80, 8)[-1] == "no room for 4 streams: make the window larger"
    assert shown(blocks, 30, 3) == ["reason0.0", "reason1.0", "no room for 5 streams, 3 stage"]


def test_an_item_is_shown_whole_or_not_at_all() -> None:
    blocks = [block(0, "reason", 2, lines=3)]
    assert shown(blocks, 80, 5) == [
        *("reason0.0", "reason0.1", "reason0.2"),
        "no room for 1 reason: make the window larger",
    ]


def test_what_nobody_misses_is_not_named() -> None:
    assert shown([block(0, "reason", 2), block(9, "", 1)], 80, 2) == ["reason0.0", "reason1.0"]


@given(
    st.lists(
        st.builds(
            block,
            st.integers(0, 5),
            st.sampled_from(["reason", "stage", ""]),
            st.integers(0, 6),
            lines=st.integers(1, 4),
            heading=st.integers(0, 1),
        ),
        max_size=6,
    ),
    st.integers(1, 30),
    st.integers(1, 40),
)
def test_it_is_never_higher_than_the_window(blocks: list[Block], width: int, height: int) -> None:
    lines = fitted(blocks, width, height)
    assert len(lines) <= height
    everything = sum(
        len(it.items) * len(it.items[0]) + len(it.heading) for it in blocks if it.items
    )
    if everything <= height:
        assert len(lines) == everything


@given(SPANS, st.integers(4, 40), st.integers(0, 2))
def test_figures_flow_whole(spans: list[Span], width: int, indent: int) -> None:
    lines = flow(spans, width, indent)
    assert all(line.cell_len <= width for line in lines)
    kept = "".join(line.plain for line in lines)
    words = "".join("".join(wrapped(text, 1000)) for text, _ in spans)
    assert kept.replace(" ", "") == words.replace(" ", "")
    assert not {"\x1b", "\n"} & set(kept)


def test_a_figure_that_has_no_room_beside_others_goes_to_the_next_line() -> None:
    spans = [("orders", "bold"), ("running for 12 s", ""), ("lag 1,000", "red")]
    assert [line.plain for line in flow(spans, 26, indent=2)] == [
        "orders  running for 12 s",
        "  lag 1,000",
    ]
    assert [line.plain for line in flow(spans, 40)] == ["orders  running for 12 s  lag 1,000"]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("the warehouse is closed", 12, ["the", "warehouse is", "closed"]),
        ("connection-refused-by-it", 10, ["connection", "-refused-b", "y-it"]),
        ("月月月", 4, ["月月", "月"]),
        ("", 5, [""]),
        ("   12", 5, ["   12"]),
    ],
)
def test_text_is_broken_between_words(text: str, width: int, lines: list[str]) -> None:
    assert wrapped(text, width) == lines


NAME = "warehouse-of-the-whole-company"
ROWS: list[list[Span]] = [
    [("load", ""), ("99%", "red"), ("", "")],
    [(NAME, ""), ("1%", ""), ("7", "")],
]


def test_columns_where_they_fit() -> None:
    heading, rows = table(("stage", "busy", "failed"), ROWS, 80)
    assert [line.plain for line in heading] == [f"stage{' ' * (len(NAME) - 5)}  busy  failed"]
    assert [[line.plain for line in row] for row in rows] == [
        [f"load{' ' * (len(NAME) - 4)}   99%        "],
        [f"{NAME}    1%       7"],
    ]


def test_a_row_flows_where_columns_do_not_fit() -> None:
    heading, rows = table(("stage", "busy", "failed"), ROWS, 40)
    assert heading == []
    assert [[line.plain for line in row] for row in rows] == [
        ["load  busy 99%"],
        [f"{NAME}  busy 1%", "  failed 7"],
    ]
    assert all(cell_len(line.plain) <= 40 for row in rows for line in row)
