"""A slice is the same messages as columns and as rows, however it is cut and put together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.pipeline.delivery import Delivery
from flowstream.pipeline.message import Detached, Message
from flowstream.pipeline.slice import Slice

parts_of = st.lists(
    st.tuples(st.integers(1, 8), st.booleans(), st.booleans()), min_size=1, max_size=6
)
"""Deliveries: their size, whether a filter left gaps, and whether they are rows already."""


def made(count, base, *, gaps=False, rows=False):
    offsets = [base + 2 * n for n in range(count)] if gaps else None
    delivery = Delivery(Detached("s"), base, count, offsets=offsets)
    part = Slice(
        [(delivery, range(count))],
        raw=[b"x" * (base + n) for n in range(count)],
        data=[f"{base}/{n}" for n in range(count)],
    )
    if rows:
        part.messages  # noqa: B018 - makes them
    return part


def shape(part):
    """Everything that can be seen of a slice."""
    return part.data, part.raw, part.offsets, part.size, len(part)


def together(parts, base=0):
    whole = None
    for count, gaps, rows in parts:
        part = made(count, base, gaps=gaps, rows=rows)
        base += 2 * count
        if whole is None:
            whole = part
        else:
            whole.extend(part)
    return whole


@given(parts_of)
def test_rows_are_what_columns_were(parts):
    columns = together(parts)
    rows = together([(count, gaps, True) for count, gaps, _ in parts])
    assert shape(columns) == shape(rows)
    assert [(m.data, m.raw, m.offset) for m in rows] == [
        (m.data, m.raw, m.offset) for m in columns.messages
    ]
    assert columns.messages is columns.messages
    assert shape(columns) == shape(rows)


@given(parts_of, st.lists(st.integers(1, 7), max_size=10))
def test_taking_loses_and_repeats_nothing(parts, counts):
    part, before = together(parts), shape(together(parts))
    heads = []
    for count in counts:
        if count < len(part):
            heads.append(part.take(count))
            assert len(heads[-1]) == count
    pieces = [*heads, part]
    for column in range(3):
        assert [item for piece in pieces for item in shape(piece)[column]] == before[column]
    assert sum(piece.size for piece in pieces) == before[3]


@given(parts_of)
def test_settling_its_runs_settles_every_message_once(parts):
    part = together(parts)
    for delivery, indexes in part.runs:
        delivery.settle(indexes)
    assert all(not delivery.remaining for delivery, _ in part.runs)
    with pytest.raises(AssertionError, match="settled twice"):
        part.runs[0][0].settle(part.runs[0][1])


def test_what_a_handler_does_to_a_message_is_seen_by_all_who_look_later():
    part = made(3, 0)
    part.messages[1].data = "new"
    assert part.data == ["0/0", "new", "0/2"]
    part.replace(["a", "b", "c"])
    assert [message.data for message in part] == ["a", "b", "c"]
    assert not part.touched
    part.fail(0, "wrong")
    part.drop(2, "not wanted")
    assert [message.failed or message.dropped for message in part.flagged] == [
        "wrong",
        "not wanted",
    ]
    assert made(3, 0).flagged == []


def test_new_makes_one_for_a_handlers_test():
    part = Slice.new({"n": 1}, {"n": 2}, raw=[b"1", b"2"], stream="orders", offset=5)
    assert (part.data, part.raw, part.offsets) == ([{"n": 1}, {"n": 2}], [b"1", b"2"], [5, 6])
    assert repr(part) == "<Slice of 2 from orders@5>"
    assert isinstance(part.messages[0], Message)
